import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { PaddockError } from '../../../core/errors.ts';
import type { SandboxId } from '../../../core/ids.ts';
import { callerSignal } from '../../caller.ts';
import { sendEventStream } from '../../event-stream.ts';
import { leaveBodiesUnread, readBodiesAsJson } from '../../json-body.ts';
import { malformed, tooLargeAdvice } from '../body.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { badRequest, SuperserveError } from '../errors.ts';
import { collect, failedStart, isFailedStart, runInput, streamFrames } from '../exec.ts';
import { assertWritable, baseName, contentDisposition, readPath } from '../file-paths.ts';
import { zipDirectory } from '../zip.ts';

/** Bytes of one uploaded file (contract, section 5.4). */
const mostFileBytes = 4 * 1024 ** 3;

const FilesQuery = Type.Object({ path: Type.Optional(Type.String()), format: Type.Optional(Type.String()) });

/** The data plane in plain HTTP (contract, section 5): commands and files of the sandbox that host or header named. */
export function agentRoutes(app: Scope, deps: RouteDependencies): void {
  const { processes, files, stopping } = deps;

  app.register(async (instance) => {
    const scope = instance as Scope;
    readBodiesAsJson(scope, { malformed, advice: tooLargeAdvice });

    scope.post('/exec', async (request, reply) => {
      const input = runInput(request.body);
      let started = false;
      try {
        const events = await processes.stream(request.principal, target(request), input, callerSignal(reply, stopping.expired));
        started = true;
        return await collect(events);
      } catch (error) {
        // Neither a 5xx: the command may have had its effect, and on a 503 clients would wake the sandbox and run it again.
        if (stopping.expired.aborted) throw new PaddockError('conflict', 'the server was stopped before the command was over', {}, { cause: error });
        if (started && wasPaused(error)) throw new SuperserveError(409, 'conflict', 'the sandbox was paused while the command ran; it goes on when the sandbox is resumed, but its output cannot be had any more', { cause: error });
        throw error;
      }
    });

    scope.post('/exec/stream', async (request, reply) => {
      const input = runInput(request.body);
      const signal = callerSignal(reply, stopping.draining);
      try {
        const events = await processes.stream(request.principal, target(request), input, signal);
        await sendEventStream(reply, streamFrames(events, stopping.draining));
      } catch (error) {
        if (!isFailedStart(error) || reply.sent) throw error;
        await sendEventStream(reply, failedStart(error));
      }
    });
  });

  app.get('/files', { schema: { querystring: FilesQuery } }, async (request, reply) => {
    const path = readPath(request.query.path);
    const signal = callerSignal(reply);
    const { principal } = request;
    if (request.query.format === 'zip' && (await isDirectory(request, path, signal))) {
      const tree = {
        list: (directory: string, depth: number) => files.list(principal, target(request), directory, undefined, depth, signal),
        read: (file: string) => files.read(principal, target(request), file, undefined, signal),
      };
      const body = await zipDirectory(tree, path, signal);
      return reply.type('application/zip').header('content-disposition', contentDisposition(`${baseName(path)}.zip`)).send(body);
    }
    if (request.query.format !== undefined && request.query.format !== 'zip') throw badRequest('format', `must be zip or left out, but is "${request.query.format.slice(0, 40)}"`);
    const { size, body, part } = await files.read(principal, target(request), path, undefined, signal, wantedRange(request.headers)).catch((error: unknown) => {
      throw fileError(error, path);
    });
    if (part !== undefined) reply.code(206).header('content-range', `bytes ${part.first}-${part.last}/${part.total}`);
    // Files of /proc say 0 and are longer: without a length the answer ends where the body does.
    if (size > 0) reply.headers({ 'content-length': size, 'accept-ranges': 'bytes' });
    return reply.type('application/octet-stream').header('content-disposition', contentDisposition(baseName(path))).send(body);
  });

  app.register(async (instance) => {
    const scope = instance as Scope;
    leaveBodiesUnread(scope);
    scope.post('/files', { schema: { querystring: FilesQuery } }, async (request, reply) => {
      try {
        const path = readPath(request.query.path);
        assertWritable(path);
        const announced = Number(request.headers['content-length'] ?? 0);
        if (announced > mostFileBytes) throw new PaddockError('too_large', `the file has ${announced} bytes; the limit is ${mostFileBytes}`);
        const written = await files.write(request.principal, target(request), path, undefined, request.raw, callerSignal(reply), mostFileBytes);
        return { path: written.path, size: written.size };
      } catch (error) {
        throw fileError(error, request.query.path ?? '');
      } finally {
        request.raw.resume(); // what nobody wanted is thrown away, so that the connection can be used again
      }
    });
  });

  async function isDirectory(request: FastifyRequest, path: string, signal: AbortSignal): Promise<boolean> {
    if (path === '/') return true;
    const entry = await files.info(request.principal, target(request), path, undefined, signal);
    return entry.type === 'dir' || entry.targetType === 'dir';
  }
}

/** The sandbox that a request is for; the scope's hook has put it there. */
export function target(request: FastifyRequest): { readonly id: SandboxId } {
  return { id: request.agentTarget };
}

function wasPaused(error: unknown): boolean {
  return error instanceof PaddockError && error.code === 'conflict' && error.detail.reason === 'paused';
}

/** The one range that a download asks for. Others, and those with a condition, get the whole file, which is always a right answer (RFC 9110, section 14.2). */
function wantedRange(headers: FastifyRequest['headers']): string | undefined {
  const range = headers.range?.trim() ?? '';
  return /^bytes=(\d{1,15}-\d{0,15}|-\d{1,15})$/.test(range) && headers['if-range'] === undefined ? range : undefined;
}

/** What went wrong with a file, in the words of this wire. */
function fileError(thrown: unknown, path: string): unknown {
  const error = PaddockError.from(thrown);
  if (error.detail.reason === 'range_not_satisfiable') {
    return new SuperserveError(416, 'range_not_satisfiable', error.message, { headers: { 'content-range': `bytes */${error.detail.fileBytes ?? '*'}` }, cause: thrown });
  }
  // The guest's own file system refused or failed. A 403 would look like a bad token, and be tried again with a new one.
  const refused = error.code === 'permission_denied' || error.detail.reason === 'guest_failed';
  return refused ? new SuperserveError(500, 'sandbox_filesystem_error', error.message, { extra: { path }, cause: thrown }) : thrown;
}

/** Closes the place of a request when its answer is over. */
export function onceAnswered(reply: FastifyReply, leave: () => void): void {
  reply.raw.once('close', leave);
}
