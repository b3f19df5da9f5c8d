import { Type } from 'typebox';
import { PaddockError } from '../../../core/errors.ts';
import { parseSnapshotId, type SnapshotId } from '../../../core/ids.ts';
import { ServerTiming } from '../../server-timing.ts';
import { bodyReader, optional, strict } from '../body.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { badRequest } from '../errors.ts';
import { parseId } from '../ids.ts';
import { assertName } from '../limits.ts';
import { parsePage, type RawQuery } from '../list-query.ts';
import { presentSnapshot } from '../present.ts';
import { SandboxParams } from './sandboxes.ts';

const SnapshotParams = Type.Object({ snapshotId: Type.String() });
export const SnapshotBody = strict({ kind: optional(Type.String()), name: optional(Type.String()), idempotency_key: optional(Type.String()) });
const readSnapshot = bodyReader(SnapshotBody);
const readRename = bodyReader(strict({ name: optional(Type.String()) }));

/** All of a sandbox or team, when the request does not say. */
const mostListed = 1000;

/** Saved snapshots (contract, section 4.11). */
export function snapshotRoutes(app: Scope, { sandboxes }: RouteDependencies): void {
  const { snapshots } = sandboxes;

  app.post('/sandboxes/:id/snapshot', { schema: { params: SandboxParams } }, async (request, reply) => {
    const { kind = 'mem+fs', name, idempotency_key: key } = readSnapshot(request.body);
    if (kind !== 'mem+fs') throw badRequest('kind', `must be mem+fs, but is "${kind.slice(0, 40)}"`);
    if (name !== undefined) assertName(name);
    if (key !== undefined && (key === '' || Buffer.byteLength(key) > 255)) throw badRequest('idempotency_key', `must have 1 to 255 bytes, but has ${Buffer.byteLength(key)}`);
    const timing = new ServerTiming();
    const input = { lap: timing.lap, ...(name === undefined ? {} : { name }), ...(key === undefined ? {} : { idempotencyKey: key }) };
    const { snapshot, replayed } = await snapshots.create(request.principal, parseId(request.params.id), input);
    return reply.code(replayed ? 200 : 201).header('server-timing', timing.header).send(presentSnapshot(snapshot));
  });

  app.get('/sandboxes/:id/snapshots', { schema: { params: SandboxParams } }, async (request, reply) => {
    const { limit, offset } = parsePage(request.query as RawQuery);
    const page = await snapshots.ofSandbox(request.principal, parseId(request.params.id), { limit: limit ?? mostListed, offset });
    return reply.header('x-total-count', page.total).send(page.items.map(presentSnapshot));
  });

  app.get('/snapshots/:snapshotId', { schema: { params: SnapshotParams } }, async (request) => presentSnapshot(await snapshots.get(request.principal, readId(request.params.snapshotId))));

  app.patch('/snapshots/:snapshotId', { schema: { params: SnapshotParams } }, async (request) => {
    const id = readId(request.params.snapshotId);
    return presentSnapshot(await snapshots.rename(request.principal, id, assertName(readRename(request.body).name)));
  });

  app.delete('/snapshots/:snapshotId', { schema: { params: SnapshotParams } }, async (request, reply) => {
    const id = readId(request.params.snapshotId);
    if (!(await snapshots.delete(request.principal, id))) throw new PaddockError('not_found', `there is no snapshot ${id}; it may have been deleted`);
    return reply.code(204).send();
  });
}

function readId(text: string): SnapshotId {
  const id = parseSnapshotId(text);
  if (id === null || id !== text) throw badRequest('snapshot id', `must be a lowercase UUID, but is "${text.slice(0, 80)}"`);
  return id;
}
