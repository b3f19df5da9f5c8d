import { Type } from 'typebox';
import { eachOf } from '../../../core/each-of.ts';
import { PaddockError } from '../../../core/errors.ts';
import type { Principal } from '../../../core/principal.ts';
import { callerSignal } from '../../caller.ts';
import { ServerTiming } from '../../server-timing.ts';
import { createFromInput, createInput, defaultTimeoutSeconds } from '../create.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { parsePublicId, parseSnapshotName, sandboxNotFound } from '../ids.ts';
import { parseListQuery, type RawQuery } from '../list-query.ts';
import { createWithoutNulls } from '../nulls.ts';
import { AsyncQuery, SandboxParams } from '../schemas/common.ts';
import { CreateBody, KillManyBody, TimeoutBody } from '../schemas/sandboxes.ts';

/** How many sandboxes of one kill-many are ended at the same time. */
const killsAtOnce = 16;

/** Create, look up, list, end, and what belongs to the life of a sandbox (contract, section 2.1). */
export function sandboxRoutes(app: Scope, deps: RouteDependencies): void {
  const { sandboxes, present, cursors, idempotency, maxTimeoutSeconds } = deps;

  app.post(
    '/sandboxes',
    {
      schema: { body: CreateBody },
      preValidation: async (request) => {
        assertOfThisWire(request.body);
        request.received = request.body as Record<string, unknown>;
        request.body = createWithoutNulls(request.body) as typeof request.body;
      },
    },
    async (request, reply) => {
      const key = request.headers['idempotency-key'];
      assertSession(request.body.timeout ?? defaultTimeoutSeconds, maxTimeoutSeconds);
      const timing = new ServerTiming();
      const created = await idempotency.once(request.principal.teamId, typeof key === 'string' ? key : undefined, request.received, async (born) => {
        const { snapshot_id: from } = request.body;
        const sandbox =
          from === undefined
            ? await sandboxes.create(request.principal, { ...createInput(request.principal.teamId, request.body, request.received, timing.lap), born }, callerSignal(reply))
            : await sandboxes.forks.createFrom(request.principal, parseSnapshotName(from), { ...createFromInput(request.principal.teamId, request.body, request.received, timing.lap), born }, callerSignal(reply));
        // A client that is gone by now has never heard of it, unless it asks for the same one again by its key.
        reply.raw.once('close', () => {
          if (key === undefined && !reply.raw.writableFinished) sandboxes.killLater(request.principal, { id: sandbox.id }).catch(() => {}); // it has ended already
        });
        return sandbox;
      }, (sandbox) => present.sandbox(sandbox));
      return reply.code(201).header('server-timing', timing.header).send(created);
    },
  );

  app.get('/sandboxes', async (request) => {
    const page = await sandboxes.list(request.principal, parseListQuery(request.query as RawQuery, cursors));
    const last = page.items.at(-1);
    return {
      sandboxes: page.items.map((each) => present.sandbox(each)),
      next_token: page.more && last !== undefined ? cursors.write(last) : null,
      total: page.total,
    };
  });

  app.get('/sandboxes/:id', { schema: { params: SandboxParams } }, async (request) =>
    present.sandboxWithResources(await sandboxes.get(request.principal, parsePublicId(request.params.id))),
  );

  app.delete('/sandboxes/:id', { schema: { params: SandboxParams, querystring: AsyncQuery } }, async (request, reply) => {
    const ref = parsePublicId(request.params.id);
    if (request.query.async !== 'true') return { killed: (await sandboxes.kill(request.principal, ref)).killed };
    await sandboxes.killLater(request.principal, ref);
    return reply.code(202).send({ queued: true });
  });

  app.post('/sandboxes/kill-many', { schema: { body: KillManyBody, querystring: AsyncQuery } }, async (request, reply) => {
    const later = request.query.async === 'true';
    const results = await killMany(request.principal, request.body.sandbox_ids, later);
    return reply.code(later ? 202 : 200).send({ results });
  });

  app.get('/sandboxes/:id/status', { schema: { params: SandboxParams } }, async (request) => {
    const sandbox = await sandboxes.get(request.principal, parsePublicId(request.params.id));
    return { is_running: sandbox.state === 'running' };
  });

  app.patch('/sandboxes/:id/timeout', { schema: { params: SandboxParams, body: TimeoutBody } }, async (request) => {
    assertSession(request.body.timeout, maxTimeoutSeconds);
    await sandboxes.setTimeout(request.principal, parsePublicId(request.params.id), request.body.timeout);
    return { ok: true };
  });

  app.get('/sandboxes/:id/metrics', { schema: { params: SandboxParams, querystring: Type.Object({}) } }, async (request) => {
    const samples = (await sandboxes.metrics(request.principal, parsePublicId(request.params.id))).map((each) => present.usage(each));
    // The Go client decodes one object where the others decode a list; it does not say so except by its name.
    return request.headers['user-agent']?.startsWith('Go-http-client/') ? samples[0] : samples;
  });

  async function killMany(principal: Principal, ids: readonly string[], later: boolean): Promise<Record<string, object>> {
    return Object.fromEntries(await eachOf([...new Set(ids)], killsAtOnce, async (id): Promise<[string, object]> => [id, await killOne(principal, id, later)]));
  }

  async function killOne(principal: Principal, id: string, later: boolean): Promise<object> {
    try {
      const ref = parsePublicId(id);
      if (!later) return { killed: (await sandboxes.kill(principal, ref)).killed };
      await sandboxes.killLater(principal, ref);
      return { queued: true };
    } catch (reason) {
      const error = PaddockError.from(reason);
      return { error: error.code === 'not_found' ? sandboxNotFound(id).message : error.message };
    }
  }
}

/** Fields of a Superserve create that this wire has under other names, or not at all. */
const foreignFields = ['from_template', 'from_snapshot', 'env_vars', 'timeout_seconds', 'auto_delete_seconds', 'preview_access', 'secrets'] as const;

/** Unknown fields are tolerated, but these say that the client has the wrong address: it would get a sandbox without its template and variables. */
function assertOfThisWire(body: unknown): void {
  if (typeof body !== 'object' || body === null) return;
  const foreign = foreignFields.find((field) => field in body);
  if (foreign !== undefined) throw new PaddockError('invalid_argument', `${foreign} belongs to the Superserve API, which this server has at /superserve: set SUPERSERVE_BASE_URL to this server's URL with /superserve behind it.`, { field: foreign });
}

/** The longest life is a limit of the account on this wire, and so a 403; the core keeps it too, as a limit of the field. */
function assertSession(seconds: number, max: number): void {
  if (max === 0 || seconds <= max) return;
  throw new PaddockError('permission_denied', `session duration exceeds tier limit: timeout is ${seconds} seconds, and this server allows ${max}.`, { field: 'timeout' });
}
