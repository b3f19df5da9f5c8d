import type { FastifyReply, FastifyRequest } from 'fastify';
import { PaddockError } from '../../../core/errors.ts';
import type { FileEntry } from '../../../core/host.ts';
import { callerSignal } from '../../caller.ts';
import { leaveBodiesUnread } from '../../json-body.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { parsePublicId } from '../ids.ts';
import { SandboxParams } from '../schemas/common.ts';
import { BatchBody, ListQuery, PathBody, PathQuery, RenameBody, WatchBody, WriteBody } from '../schemas/files.ts';

/** Bytes of a raw body; the core counts them while they come, this refuses an announced length at once. */
const rawBodyLimit = 500 * 1024 * 1024;

/** How many files of one batch are written at the same time. */
const writesAtOnce = 8;

/** Files inside a sandbox (contract, section 2.6). */
export function fileRoutes(app: Scope, deps: RouteDependencies): void {
  const { files, sandboxes } = deps;

  const read = async (request: FastifyRequest<{ Params: { id: string }; Querystring: { path: string; username?: string } }>, reply: FastifyReply): Promise<FastifyReply> => {
    const { path, username } = request.query;
    const { size, body } = await files.read(request.principal, parsePublicId(request.params.id), path, user(username), callerSignal(reply));
    // Files of /proc say 0 and are longer: without a length the answer ends where the body does.
    if (size > 0) reply.header('content-length', size);
    reply.header('x-content-type-options', 'nosniff'); // what a sandbox wrote is nothing for a browser to interpret
    return reply.type(request.headers.accept?.startsWith('text/plain') ? 'text/plain; charset=utf-8' : 'application/octet-stream').send(body);
  };
  app.get('/sandboxes/:id/files', { schema: { params: SandboxParams, querystring: PathQuery } }, read);
  app.get('/sandboxes/:id/files/raw', { schema: { params: SandboxParams, querystring: PathQuery } }, read);

  app.post('/sandboxes/:id/files', { schema: { params: SandboxParams, body: WriteBody } }, async (request, reply) => {
    const { path, data, username } = request.body;
    const written = await files.write(request.principal, parsePublicId(request.params.id), path, user(username), Buffer.from(data, 'utf8'), callerSignal(reply));
    return { path: written.path, size: written.size };
  });

  app.register(async (instance) => {
    const scope = instance as Scope;
    leaveBodiesUnread(scope);
    scope.put('/sandboxes/:id/files/raw', { schema: { params: SandboxParams, querystring: PathQuery } }, async (request, reply) => {
      const { path, username } = request.query;
      const announced = Number(request.headers['content-length'] ?? 0);
      if (announced > rawBodyLimit) throw new PaddockError('too_large', `The file has ${announced} bytes; the limit is ${rawBodyLimit / 1024 / 1024} MiB.`);
      try {
        const written = await files.write(request.principal, parsePublicId(request.params.id), path, user(username), request.raw, callerSignal(reply));
        return { path: written.path, size: written.size };
      } finally {
        request.raw.resume(); // what nobody wanted is thrown away, so that the connection can be used again
      }
    });
  });

  app.post('/sandboxes/:id/files/batch', { schema: { params: SandboxParams, body: BatchBody } }, async (request, reply) => {
    const ref = parsePublicId(request.params.id);
    const signal = callerSignal(reply);
    const wanted = request.body.files;
    const written: { path: string; size: number }[] = [];
    let next = 0;
    const worker = async (): Promise<void> => {
      for (let index = next++; index < wanted.length; index = next++) {
        const file = wanted[index]!;
        const { path, size } = await files.write(request.principal, ref, file.path, user(file.username ?? request.body.username), Buffer.from(file.data, 'utf8'), signal);
        written[index] = { path, size };
      }
    };
    await Promise.all(Array.from({ length: Math.min(writesAtOnce, wanted.length) }, worker));
    return written;
  });

  app.get('/sandboxes/:id/files/list', { schema: { params: SandboxParams, querystring: ListQuery } }, async (request, reply) => {
    const { path, username, depth } = request.query;
    const ref = parsePublicId(request.params.id);
    try {
      const listed = await files.list(request.principal, ref, path, user(username), depth ?? 1, callerSignal(reply));
      return listed.entries.map(presentEntry);
    } catch (error) {
      if (PaddockError.from(error).code !== 'not_found') throw error;
      await sandboxes.get(request.principal, ref); // throws when it is the sandbox that is missing
      return [];
    }
  });

  app.get('/sandboxes/:id/files/exists', { schema: { params: SandboxParams, querystring: PathQuery } }, async (request, reply) => ({
    exists: await files.exists(request.principal, parsePublicId(request.params.id), request.query.path, user(request.query.username), callerSignal(reply)),
  }));

  app.get('/sandboxes/:id/files/info', { schema: { params: SandboxParams, querystring: PathQuery } }, async (request, reply) =>
    presentEntry(await files.info(request.principal, parsePublicId(request.params.id), request.query.path, user(request.query.username), callerSignal(reply))),
  );

  app.delete('/sandboxes/:id/files', { schema: { params: SandboxParams, querystring: PathQuery } }, async (request, reply) => {
    await files.remove(request.principal, parsePublicId(request.params.id), request.query.path, user(request.query.username), callerSignal(reply));
    return {};
  });

  app.patch('/sandboxes/:id/files', { schema: { params: SandboxParams, body: RenameBody } }, async (request, reply) => {
    const { old_path: from, new_path: to, username } = request.body;
    return presentEntry(await files.rename(request.principal, parsePublicId(request.params.id), from, to, user(username), callerSignal(reply)));
  });

  app.post('/sandboxes/:id/files/mkdir', { schema: { params: SandboxParams, body: PathBody } }, async (request, reply) => ({
    created: await files.makeDir(request.principal, parsePublicId(request.params.id), request.body.path, user(request.body.username), callerSignal(reply)),
  }));

  // The clients' watch handles are never fed by anything; they only want to hear that the directory is there.
  app.post('/sandboxes/:id/files/watch', { schema: { params: SandboxParams, body: WatchBody } }, async (request, reply) => {
    await files.info(request.principal, parsePublicId(request.params.id), request.body.path, user(request.body.username), callerSignal(reply));
    return {};
  });
}

function user(name: string | undefined): string | undefined {
  return name || undefined;
}

function presentEntry(entry: FileEntry): object {
  return { name: entry.name, path: entry.path, type: entry.type === 'other' ? 'file' : entry.type, size: entry.size };
}
