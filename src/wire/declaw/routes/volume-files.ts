import type { VolumeEntry } from '../../../core/volume.ts';
import { callerSignal } from '../../caller.ts';
import { leaveBodiesUnread } from '../../json-body.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { parseVolumeName } from '../ids.ts';
import { timestamp } from '../present.ts';
import { LockBody, ReleaseBody, RenewBody, VolumeParams, VolumePathBody, VolumePathQuery, VolumeRemoveQuery, VolumeRenameBody, VolumeWriteQuery } from '../schemas/volumes.ts';
import { assertAnnounced, drained } from './volumes.ts';

/** Files and locks of a volume (contract, section 2.12). Paths go back as their caller wrote them. */
export function volumeFileRoutes(app: Scope, deps: RouteDependencies): void {
  const { volumes, volumeFiles: files, volumeLocks: locks } = deps;
  const root = '/volumes/:volumeId/files';

  app.register(async (instance) => {
    const scope = instance as Scope;
    leaveBodiesUnread(scope);
    scope.put(`${root}/raw`, { schema: { params: VolumeParams, querystring: VolumeWriteQuery } }, async (request, reply) => {
      const { path, if_version: ifVersion } = request.query;
      const written = await drained(request, () => {
        assertAnnounced(request, volumes.settings.maxVolumeBytes, 'The file');
        return files.write(request.principal, parseVolumeName(request.params.volumeId), path, request.raw, ifVersion || null, callerSignal(reply));
      });
      return { path, version: written.version };
    });
  });

  app.get(`${root}/raw`, { schema: { params: VolumeParams, querystring: VolumePathQuery } }, async (request, reply) => {
    const { entry, body } = await files.read(request.principal, parseVolumeName(request.params.volumeId), request.query.path);
    return reply.header('content-length', entry.size).header('x-content-type-options', 'nosniff').type('application/octet-stream').send(body);
  });

  app.get(`${root}/list`, { schema: { params: VolumeParams, querystring: VolumePathQuery } }, async (request) => {
    const { path } = request.query;
    const entries = await files.list(request.principal, parseVolumeName(request.params.volumeId), path);
    const below = path.endsWith('/') ? path : `${path}/`;
    return { entries: entries.map((entry) => presentEntry(entry, below + entry.name)) };
  });

  app.get(`${root}/info`, { schema: { params: VolumeParams, querystring: VolumePathQuery } }, async (request) => {
    const entry = await files.info(request.principal, parseVolumeName(request.params.volumeId), request.query.path);
    return { ...presentEntry(entry, request.query.path), version: entry.version };
  });

  app.get(`${root}/exists`, { schema: { params: VolumeParams, querystring: VolumePathQuery } }, async (request) => ({
    exists: await files.exists(request.principal, parseVolumeName(request.params.volumeId), request.query.path),
  }));

  app.delete(root, { schema: { params: VolumeParams, querystring: VolumeRemoveQuery } }, async (request, reply) => {
    const { path, recursive } = request.query;
    await files.remove(request.principal, parseVolumeName(request.params.volumeId), path, recursive === 'true' || recursive === '1');
    return reply.code(204).send();
  });

  app.patch(root, { schema: { params: VolumeParams, body: VolumeRenameBody } }, async (request) => {
    const { old_path: from, new_path: to } = request.body;
    await files.rename(request.principal, parseVolumeName(request.params.volumeId), from, to);
    return { old_path: from, new_path: to };
  });

  app.post(`${root}/mkdir`, { schema: { params: VolumeParams, body: VolumePathBody } }, async (request, reply) => {
    await files.makeDir(request.principal, parseVolumeName(request.params.volumeId), request.body.path);
    return reply.code(201).send({ path: request.body.path });
  });

  app.post('/volumes/:volumeId/locks', { schema: { params: VolumeParams, body: LockBody } }, async (request) => {
    const { token, ttlSeconds, expiresAt } = await locks.acquire(request.principal, parseVolumeName(request.params.volumeId), request.body.path, request.body.ttl_seconds);
    return { token, ttl_seconds: ttlSeconds, expires_at: timestamp(expiresAt) };
  });

  app.post('/volumes/:volumeId/locks/renew', { schema: { params: VolumeParams, body: RenewBody } }, async (request) => {
    const { path, token, ttl_seconds: seconds } = request.body;
    const { ttlSeconds, expiresAt } = await locks.renew(request.principal, parseVolumeName(request.params.volumeId), path, token, seconds);
    return { renewed: true, ttl_seconds: ttlSeconds, expires_at: timestamp(expiresAt) };
  });

  app.delete('/volumes/:volumeId/locks', { schema: { params: VolumeParams, body: ReleaseBody } }, async (request) => ({
    released: await locks.release(request.principal, parseVolumeName(request.params.volumeId), request.body.path, request.body.token),
  }));

  app.get('/volumes/:volumeId/locks', { schema: { params: VolumeParams, querystring: VolumePathQuery } }, async (request) => {
    const left = await locks.status(request.principal, parseVolumeName(request.params.volumeId), request.query.path);
    return { held: left !== null, expires_in_ms: left ?? 0 };
  });
}

function presentEntry(entry: VolumeEntry, path: string): object {
  return { name: entry.name, path, is_dir: entry.type === 'dir', size: entry.size, mod_time: timestamp(entry.modifiedAt), mode: entry.mode };
}
