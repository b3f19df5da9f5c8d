import { Type } from 'typebox';
import { PaddockError } from '../../../core/errors.ts';
import type { SnapshotId } from '../../../core/ids.ts';
import type { Principal } from '../../../core/principal.ts';
import type { Snapshot } from '../../../core/snapshot.ts';
import { callerSignal } from '../../caller.ts';
import { ServerTiming } from '../../server-timing.ts';
import { lifecycleOf } from '../create.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { parsePublicId, parseSnapshotName, publicId, snapshotName } from '../ids.ts';
import { parseCount, type RawQuery } from '../list-query.ts';
import { SandboxParams } from '../schemas/common.ts';
import { ForkBody } from '../schemas/sandboxes.ts';

/** The contract's clients keep the name of the machine; there is one. */
const nodeId = 'local';

const SnapshotParams = Type.Object({ id: Type.String(), snapshotId: Type.String() });
const RestoreQuery = Type.Object({ snapshot_id: Type.Optional(Type.String()) });

/** Pause, resume, snapshots, restore (contract, section 2.2), and the fork, which is ours. */
export function snapshotRoutes(app: Scope, deps: RouteDependencies): void {
  const { sandboxes, present, cursors } = deps;
  const { snapshots, forks } = sandboxes;

  app.post('/sandboxes/:id/pause', { schema: { params: SandboxParams } }, async (request, reply) => {
    const timing = new ServerTiming();
    const paused = await sandboxes.pause(request.principal, parsePublicId(request.params.id), timing.lap);
    return reply.header('server-timing', timing.header).send({ paused: true, sandbox_id: publicId(paused), snapshot_id: paused.snapshotId === null ? null : snapshotName(paused.snapshotId) });
  });

  app.post('/sandboxes/:id/resume', { schema: { params: SandboxParams } }, async (request, reply) => {
    const ref = parsePublicId(request.params.id);
    const timing = new ServerTiming();
    const { snapshotId } = await sandboxes.get(request.principal, ref);
    const resumed = await sandboxes.resume(request.principal, ref, timing.lap);
    return reply.header('server-timing', timing.header).send({ resumed: true, sandbox_id: publicId(resumed), node_id: nodeId, snapshot_id: snapshotId === null ? '' : snapshotName(snapshotId) });
  });

  // The clients say snapshot; what was written for earlier ones says snapshots.
  for (const url of ['/sandboxes/:id/snapshot', '/sandboxes/:id/snapshots']) {
    app.post(url, { schema: { params: SandboxParams } }, async (request, reply) => {
      const timing = new ServerTiming();
      const { snapshot } = await snapshots.create(request.principal, parsePublicId(request.params.id), { lap: timing.lap });
      return reply.code(201).header('server-timing', timing.header).send(await shown(request.principal, snapshot));
    });
  }

  app.get('/sandboxes/:id/snapshots', { schema: { params: SandboxParams } }, async (request) => {
    const sandbox = await sandboxes.get(request.principal, parsePublicId(request.params.id));
    const page = await snapshots.ofSandbox(request.principal, { id: sandbox.id }, { limit: 1000 });
    return { snapshots: page.items.filter((each) => each.readyAt !== null).map((each) => present.snapshot(each, publicId(sandbox))) };
  });

  app.delete('/sandboxes/:id/snapshots/:snapshotId', { schema: { params: SnapshotParams } }, async (request) => {
    const sandbox = await sandboxes.get(request.principal, parsePublicId(request.params.id));
    const id = nameOrNull(request.params.snapshotId);
    if (id === null) return {};
    const snapshot = await snapshots.get(request.principal, id).catch(ignoreMissing);
    if (snapshot?.sandboxId === sandbox.id) await snapshots.delete(request.principal, id);
    return {};
  });

  app.get('/snapshots', async (request) => {
    const query = request.query as RawQuery;
    const [of, token, limit] = [query['sandbox_id'], query['next_token'], query['limit']].map((each) => [each ?? []].flat().at(-1));
    const page = await snapshots.list(request.principal, {
      limit: parseCount('limit', limit, 1, 1000) ?? 100,
      ...(of ? { sandboxId: (await sandboxes.get(request.principal, parsePublicId(of))).id } : {}),
      ...(token ? { after: cursors.read<SnapshotId>(token) } : {}),
    });
    const last = page.items.at(-1);
    return {
      snapshots: await Promise.all(page.items.filter((each) => each.readyAt !== null).map((each) => shown(request.principal, each))),
      next_token: page.more && last !== undefined ? cursors.write(last) : null,
    };
  });

  app.post('/sandboxes/:id/restore', { schema: { params: SandboxParams, querystring: RestoreQuery } }, async (request, reply) => {
    const { snapshot_id: wanted } = request.query;
    const timing = new ServerTiming();
    const { sandbox, snapshot } = await snapshots.restoreInPlace(request.principal, parsePublicId(request.params.id), wanted ? parseSnapshotName(wanted) : null, timing.lap);
    return reply.header('server-timing', timing.header).send({ sandbox_id: publicId(sandbox), node_id: nodeId, snapshot_id: snapshotName(snapshot.id) });
  });

  app.post('/sandboxes/:id/fork', { schema: { params: SandboxParams, body: ForkBody } }, async (request, reply) => {
    const { count = 1, timeout, metadata, envs, lifecycle, network, security } = request.body;
    for (const [field, value] of Object.entries({ network, security })) {
      if (value !== undefined && value !== null) throw new PaddockError('invalid_argument', `${field} cannot be given: a fork has the rules of its source. Narrow them afterwards with PATCH /sandboxes/{id}/network.`, { field });
    }
    const timing = new ServerTiming();
    const forked = await forks.fork(
      request.principal,
      parsePublicId(request.params.id),
      count,
      {
        lap: timing.lap,
        ...(timeout === undefined ? {} : { timeoutSeconds: timeout }),
        ...(metadata === undefined ? {} : { metadata }),
        ...(envs === undefined ? {} : { envs }),
        ...(lifecycle === undefined ? {} : { lifecycle: lifecycleOf(lifecycle) }),
      },
      callerSignal(reply),
    );
    return reply.code(201).header('server-timing', timing.header).send({ sandboxes: forked.map((each) => present.sandbox(each)) });
  });

  /** Its sandbox may be gone without a trace, and is named by its other id then. */
  async function shown(principal: Principal, snapshot: Snapshot): Promise<object> {
    const sandbox = await sandboxes.get(principal, { id: snapshot.sandboxId }).catch(ignoreMissing);
    return present.snapshot(snapshot, sandbox === null ? snapshot.sandboxId : publicId(sandbox));
  }
}

function nameOrNull(text: string): SnapshotId | null {
  try {
    return parseSnapshotName(text);
  } catch {
    return null;
  }
}

function ignoreMissing(error: unknown): null {
  if (error instanceof PaddockError && error.code === 'not_found') return null;
  throw error;
}
