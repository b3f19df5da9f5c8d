import { setTimeout as sleep } from 'node:timers/promises';
import type { FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import type { CreateSandbox } from '../../../core/create-input.ts';
import type { Lap } from '../../../core/host.ts';
import type { SandboxId, SnapshotId } from '../../../core/ids.ts';
import type { Principal } from '../../../core/principal.ts';
import type { Sandbox } from '../../../core/sandbox.ts';
import type { SandboxUpdate } from '../../../core/changes.ts';
import { PaddockError } from '../../../core/errors.ts';
import { ruleTexts } from '../../../core/network/rules.ts';
import { goneError } from '../../../core/ended.ts';
import { defaultEnvironment } from '../../../core/secrets/names.ts';
import { ServerTiming } from '../../server-timing.ts';
import { bodyReader, malformed, strict } from '../body.ts';
import { createFromSnapshot, createInput, readCreate, readOrigin, readPreviewAccess, type CreateRequest } from '../create.ts';
import { SuperserveError } from '../errors.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { parseId } from '../ids.ts';
import { assertAutoDeleteSeconds, assertMetadata, assertTimeoutSeconds } from '../limits.ts';
import { parseListQuery, type Listing, type RawQuery } from '../list-query.ts';
import { Network, readNetwork } from '../network-rules.ts';
import { presentSandbox, presentSecrets } from '../present.ts';
import { statusOf } from '../status.ts';

export const SandboxParams = Type.Object({ id: Type.String() });

/** Unlike in a create, null has a meaning in two of these. */
export const PatchBody = strict({
  network: Type.Optional(Network),
  metadata: Type.Optional(Type.Record(Type.String(), Type.String())),
  timeout_seconds: Type.Optional(Type.Union([Type.Integer(), Type.Null()])),
  auto_delete_seconds: Type.Optional(Type.Union([Type.Integer(), Type.Null()])),
  preview_access: Type.Optional(Type.String()),
});
const readPatch = bodyReader(PatchBody);

/** Milliseconds that a create waits for a template that is being built; the SDK gives up after 30 s. */
const awaitsTemplateMs = 20_000;
/** How many rows of a listing without a limit are read at once. */
const pageSize = 500;

/** Create, look up, list, change and delete (contract, sections 4.1 to 4.5). */
export function sandboxRoutes(app: Scope, deps: RouteDependencies): void {
  const { sandboxes, networks, templates, settings, tokens, stopping, secrets, secretAttachments } = deps;

  app.post('/sandboxes', async (request, reply) => {
    const timing = new ServerTiming();
    const asked = readCreate(request.body);
    await secrets.assertNamed(request.principal, defaultEnvironment, Object.values(asked.body.secrets ?? {}));
    const snapshotId = readOrigin(asked);
    // Not the caller's signal: a create whose client has left goes on, and is found by its name.
    const sandbox =
      snapshotId === null
        ? await fromTemplate(request.principal, createInput(asked, templates, settings, timing.lap))
        : await fromSnapshot(request.principal, asked, snapshotId, timing.lap);
    return reply.code(201).header('server-timing', timing.header).send(await withToken(sandbox));
  });

  app.get('/sandboxes', async (request, reply) => {
    const listing = parseListQuery(request.query as RawQuery);
    const { items, total } = await list(request.principal, listing);
    return reply.header('x-total-count', total).send(items.map(presentSandbox));
  });

  app.get('/sandboxes/:id', { schema: { params: SandboxParams } }, async (request) => {
    const sandbox = await existing(request.principal, request.params.id);
    return statusOf(sandbox) === 'failed' ? presentSandbox(sandbox) : withToken(sandbox);
  });

  app.delete('/sandboxes/:id', { schema: { params: SandboxParams } }, async (request, reply) => {
    const ref = parseId(request.params.id);
    const sandbox = await sandboxes.get(request.principal, ref);
    const status = statusOf(sandbox);
    if (status === 'failed') await sandboxes.acknowledgeDeath(request.principal, ref);
    else if (sandbox.state === 'killed') throw notFound(request.params.id);
    else await destroy(request, ref);
    return reply.code(204).send();
  });

  /** Once its end is decided a sandbox is deleted for everybody; what it still holds is taken back by and by. */
  async function destroy(request: FastifyRequest, ref: { readonly id: SandboxId }): Promise<void> {
    try {
      await sandboxes.kill(request.principal, ref);
    } catch (error) {
      if (statusOf(await sandboxes.get(request.principal, ref)) !== 'deleted') throw error;
      request.log.warn({ err: error, sandbox: ref.id }, 'a deleted sandbox still holds something');
    }
  }

  app.patch('/sandboxes/:id', { schema: { params: SandboxParams } }, async (request, reply) => {
    const ref = parseId(request.params.id);
    const { network, previews, ...changes } = readChanges(request.body);
    const sandbox = await existing(request.principal, request.params.id);
    if (sandbox.end !== null) throw goneError(sandbox.end);
    if (network !== undefined) {
      const { allow, deny } = ruleTexts(network);
      await networks.replace(request.principal, ref, { network, declare: (before) => (before.network === undefined ? before : { ...before, network: { ...(before.network as object), allow_out: allow, deny_out: deny } }) });
    }
    if (previews !== undefined) await networks.setPreviews(request.principal, ref, previews);
    if (Object.keys(changes).length > 0) await sandboxes.update(request.principal, ref, updateOf(changes));
    return reply.code(204).send();
  });

  async function fromTemplate(principal: Principal, input: CreateSandbox): Promise<Sandbox> {
    // The first sandbox after the first start: better a little late than refused.
    const until = Date.now() + awaitsTemplateMs;
    while (!stopping.draining.aborted && templates.pending?.().includes(input.templateName) === true && Date.now() < until) await sleep(250, undefined, { signal: stopping.draining }).catch(() => {});
    return sandboxes.create(principal, input, stopping.expired);
  }

  async function fromSnapshot(principal: Principal, asked: CreateRequest, id: SnapshotId, lap: Lap): Promise<Sandbox> {
    try {
      const { captured } = await sandboxes.snapshots.get(principal, id);
      return await sandboxes.forks.createFrom(principal, id, createFromSnapshot(asked, captured.policy, settings, lap), stopping.expired);
    } catch (error) {
      if (PaddockError.from(error).code !== 'not_found') throw error;
      throw new SuperserveError(404, 'snapshot_not_found', `there is no snapshot ${id}; it may have been deleted`, { cause: error });
    }
  }

  function updateOf({ metadata, timeoutSeconds, autoDeleteSeconds }: Changes): SandboxUpdate {
    return {
      ...(metadata === undefined ? {} : { metadata }),
      ...(timeoutSeconds === undefined ? {} : settings.timeout === 'hard_cap' ? { maxLifetimeSeconds: timeoutSeconds } : { timeoutSeconds: timeoutSeconds ?? 0 }),
      ...(autoDeleteSeconds === undefined ? {} : { autoDeleteSeconds }),
    };
  }

  async function withToken(sandbox: Sandbox): Promise<object> {
    return { ...presentSandbox(sandbox), ...presentSecrets(await secretAttachments.list(sandbox)), access_token: tokens.issue(sandbox.id) };
  }

  /** One that has been deleted is not found on this wire. */
  async function existing(principal: Principal, id: string): Promise<Sandbox> {
    const sandbox = await sandboxes.get(principal, parseId(id));
    if (statusOf(sandbox) === 'deleted') throw notFound(id);
    return sandbox;
  }

  async function list(principal: Principal, { query, limit, offset }: Listing): Promise<{ readonly items: readonly Sandbox[]; readonly total: number }> {
    if (limit !== null) return sandboxes.list(principal, { ...query, limit, offset });
    const items: Sandbox[] = [];
    for (;;) {
      const page = await sandboxes.list(principal, { ...query, limit: pageSize, offset: offset + items.length });
      items.push(...page.items);
      if (!page.more) return { items, total: page.total };
    }
  }
}

export function notFound(id: string): PaddockError {
  return new PaddockError('not_found', `there is no sandbox ${id.slice(0, 80)}; it may have been deleted, or belong to another team`);
}

interface Changes {
  readonly network?: ReturnType<typeof readNetwork>;
  readonly previews?: 'public' | 'private';
  readonly metadata?: Readonly<Record<string, string>>;
  readonly timeoutSeconds?: number | null;
  readonly autoDeleteSeconds?: number | null;
}

/** Contract, section 4.5: at least one field; null takes a time away, an absent one leaves it. */
function readChanges(received: unknown): Changes {
  const body = readPatch(received);
  const sent = received as Readonly<Record<string, unknown>>;
  if (Object.keys(sent).length === 0) throw new PaddockError('invalid_argument', 'the body must have at least one of network, metadata, timeout_seconds, auto_delete_seconds, preview_access');
  for (const name of ['network', 'metadata', 'preview_access']) if (sent[name] === null) throw new PaddockError('invalid_argument', malformed);
  const { timeout_seconds: timeout, auto_delete_seconds: autoDelete } = body;
  if (timeout !== undefined) assertTimeoutSeconds(timeout);
  if (autoDelete !== undefined) assertAutoDeleteSeconds(autoDelete);
  const network = body.network === undefined ? undefined : readNetwork(body.network);
  if (body.metadata !== undefined) assertMetadata(body.metadata);
  const previews = readPreviewAccess(body.preview_access);
  return {
    ...(network === undefined ? {} : { network }),
    ...(previews === undefined ? {} : { previews }),
    ...(body.metadata === undefined ? {} : { metadata: body.metadata }),
    ...('timeout_seconds' in sent ? { timeoutSeconds: timeout ?? null } : {}),
    ...('auto_delete_seconds' in sent ? { autoDeleteSeconds: autoDelete ?? null } : {}),
  };
}
