import type { FastifyReply, FastifyRequest } from 'fastify';
import { PaddockError } from '../../../core/errors.ts';
import type { VolumeId } from '../../../core/ids.ts';
import type { Sandbox } from '../../../core/sandbox.ts';
import type { Volume } from '../../../core/volume.ts';
import { callerSignal } from '../../caller.ts';
import { leaveBodiesUnread } from '../../json-body.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { parsePublicId, parseVolumeName } from '../ids.ts';
import { SandboxParams } from '../schemas/common.ts';
import { CaptureQuery, CommitParams, CommitQuery, NameQuery, VolumeDeleteQuery, VolumeListQuery, VolumeParams } from '../schemas/volumes.ts';

/** Of a listing that names no limit. */
const mostListed = 10_000;

/** Volumes as wholes (contract, section 2.12). */
export function volumeRoutes(app: Scope, deps: RouteDependencies): void {
  const { volumes, volumeCaptures: captures, sandboxes, present, cursors } = deps;

  app.register(async (instance) => {
    const scope = instance as Scope;
    leaveBodiesUnread(scope);

    const ingest = async (request: FastifyRequest<{ Querystring: { name: string } }>, reply: FastifyReply, required: boolean): Promise<FastifyReply> => {
      const volume = await drained(request, () => {
        assertAnnounced(request, volumes.settings.maxVolumeBytes, 'The archive');
        return volumes.ingest(request.principal, request.query.name, request.raw, required, callerSignal(reply));
      });
      return answer(volume, reply);
    };
    scope.post('/volumes', { schema: { querystring: NameQuery } }, (request, reply) => ingest(request, reply, false));
    scope.post('/volumes/ingest', { schema: { querystring: NameQuery } }, (request, reply) => ingest(request, reply, true));
    scope.post('/volumes/empty', { schema: { querystring: NameQuery } }, async (request, reply) => answer(await drained(request, () => volumes.create(request.principal, request.query.name)), reply));
  });

  // Not in the contract: pages, for whoever asks for them. The clients read the first key only.
  app.get('/volumes', { schema: { querystring: VolumeListQuery } }, async (request) => {
    const { limit, next_token: token } = request.query;
    const after = token === undefined || token === '' ? {} : { after: cursors.read<VolumeId>(token) };
    const found = await volumes.list(request.principal, { limit: (limit ?? mostListed) + 1, ...after });
    const shown = found.slice(0, limit ?? mostListed);
    const last = shown.at(-1);
    return { volumes: shown.map((each) => present.volume(each, volumes.settings.maxVolumeBytes)), next_token: found.length > shown.length && last !== undefined ? cursors.write(last) : null };
  });

  app.get('/volumes/:volumeId', { schema: { params: VolumeParams } }, async (request) =>
    present.volume(await volumes.describe(request.principal, parseVolumeName(request.params.volumeId)), volumes.settings.maxVolumeBytes),
  );

  app.delete('/volumes/:volumeId', { schema: { params: VolumeParams, querystring: VolumeDeleteQuery } }, async (request) => {
    const id = parseVolumeName(request.params.volumeId);
    const force = ['true', '1'].includes(request.query.force ?? '');
    if (!(await volumes.delete(request.principal, id, { force }))) await volumes.get(request.principal, id); // says that there is none
    return {};
  });

  app.get('/volumes/:volumeId/download', { schema: { params: VolumeParams } }, async (request, reply) => {
    const archive = await volumes.download(request.principal, parseVolumeName(request.params.volumeId), callerSignal(reply));
    return reply.header('x-content-type-options', 'nosniff').type('application/gzip').send(archive);
  });

  app.post('/sandboxes/:id/volumes/:volumeId/commit', { schema: { params: CommitParams, querystring: CommitQuery } }, async (request, reply) => {
    const sandbox = await sandboxes.get(request.principal, parsePublicId(request.params.id));
    const source = await volumes.get(request.principal, parseVolumeName(request.params.volumeId));
    const path = mountPathOf(sandbox, source.id);
    return answer(await captures.capture(request.principal, { id: sandbox.id }, path, request.query.name ?? `${source.name.slice(0, 121)}-commit`, callerSignal(reply)), reply);
  });

  app.post('/sandboxes/:id/volumes/snapshot', { schema: { params: SandboxParams, querystring: CaptureQuery } }, async (request, reply) => {
    const { path, name = 'snapshot' } = request.query;
    return answer(await captures.capture(request.principal, parsePublicId(request.params.id), path, name, callerSignal(reply)), reply);
  });

  function answer(volume: Volume, reply: FastifyReply): FastifyReply {
    return reply.code(201).send(present.volume(volume, volumes.settings.maxVolumeBytes));
  }
}

/** Where a volume was put, by what the create of the sandbox said. */
function mountPathOf(sandbox: Sandbox, id: VolumeId): string {
  const attached = (sandbox.declared.volumes ?? []) as readonly { readonly volume_id: string; readonly mount_path: string }[];
  const found = attached.find((each) => parseVolumeName(each.volume_id) === id);
  if (found === undefined) throw new PaddockError('invalid_argument', 'the volume is not attached to this sandbox; to keep another directory, use volumes/snapshot with its path');
  return found.mount_path;
}

/** What nobody wanted of a body is thrown away, so that the answer arrives and the connection can be used again. */
export async function drained<T>(request: FastifyRequest, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } finally {
    request.raw.resume();
  }
}

/** Refuses at once what says itself that it is too long. */
export function assertAnnounced(request: FastifyRequest, limit: number, what: string): void {
  const announced = Number(request.headers['content-length'] ?? 0);
  if (announced > limit) throw new PaddockError('too_large', `${what} has ${announced} bytes; the limit of a volume is ${limit} (PADDOCK_MAX_VOLUME_MB).`);
}
