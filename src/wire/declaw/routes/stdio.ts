import { callerSignal } from '../../caller.ts';
import { sendEventStream } from '../../event-stream.ts';
import { decodeBase64 } from '../base64.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { parsePublicId } from '../ids.ts';
import { SandboxParams } from '../schemas/common.ts';
import { Base64InputBody, StdioBody, StdioParams, StdioStreamQuery } from '../schemas/processes.ts';
import { stdioFrames } from '../sse.ts';

/** Interactive processes with separate streams, which outlive their readers (contract, section 2.4). */
export function stdioRoutes(app: Scope, deps: RouteDependencies): void {
  const { processes, stopping } = deps;

  app.post('/sandboxes/:id/stdio', { schema: { params: SandboxParams, body: StdioBody } }, async (request, reply) => {
    const { cmd, user, envs, cwd } = request.body;
    const input = { cmd, ...(user ? { user } : {}), ...(cwd ? { cwd } : {}), ...(envs === undefined ? {} : { envs }), timeoutSeconds: 0, stdin: true };
    const started = await processes.startStdio(request.principal, parsePublicId(request.params.id), input, callerSignal(reply));
    return { cmd_id: started.id };
  });

  app.post('/sandboxes/:id/stdio/:cmdId/stdin', { schema: { params: StdioParams, body: Base64InputBody } }, async (request, reply) => {
    const data = decodeBase64('data', request.body.data);
    await processes.writeStdio(request.principal, parsePublicId(request.params.id), request.params.cmdId, data, callerSignal(reply));
    return {};
  });

  app.post('/sandboxes/:id/stdio/:cmdId/stdin/close', { schema: { params: StdioParams } }, async (request, reply) => {
    await processes.closeStdio(request.principal, parsePublicId(request.params.id), request.params.cmdId, callerSignal(reply));
    return {};
  });

  app.delete('/sandboxes/:id/stdio/:cmdId', { schema: { params: StdioParams } }, async (request, reply) => ({
    killed: await processes.killStdio(request.principal, parsePublicId(request.params.id), request.params.cmdId, callerSignal(reply)),
  }));

  app.get('/sandboxes/:id/stdio/:cmdId/stream', { schema: { params: StdioParams, querystring: StdioStreamQuery } }, async (request, reply) => {
    const after = request.query.last_entry_id ?? 0;
    const signal = callerSignal(reply, stopping.draining);
    const events = await processes.stdioOutput(request.principal, parsePublicId(request.params.id), request.params.cmdId, after, signal);
    await sendEventStream(reply, stdioFrames(events));
  });
}
