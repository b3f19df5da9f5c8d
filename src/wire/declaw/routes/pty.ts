import { callerSignal } from '../../caller.ts';
import { sendEventStream } from '../../event-stream.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { parsePublicId } from '../ids.ts';
import { parsePid } from '../pid.ts';
import { ProcessParams, SandboxParams } from '../schemas/common.ts';
import { PtyBody, ResizeBody, TextInputBody } from '../schemas/processes.ts';
import { ptyFrames } from '../sse.ts';

const defaultSize = { cols: 80, rows: 24 };
/** Seconds a terminal lives when its request does not say, attached or not. */
const defaultTimeoutSeconds = 3600;

/** Terminals (contract, section 2.5). */
export function ptyRoutes(app: Scope, deps: RouteDependencies): void {
  const { processes, stopping } = deps;

  app.post('/sandboxes/:id/pty', { schema: { params: SandboxParams, body: PtyBody } }, async (request, reply) => {
    const { size = defaultSize, user, cwd, envs, timeout } = request.body;
    const input = { ...size, ...(user ? { user } : {}), ...(cwd ? { cwd } : {}), ...(envs === undefined ? {} : { envs }), timeoutSeconds: timeout ?? defaultTimeoutSeconds };
    const started = await processes.startPty(request.principal, parsePublicId(request.params.id), input, callerSignal(reply));
    return { pid: started.pid };
  });

  app.post('/sandboxes/:id/pty/:pid/stdin', { schema: { params: ProcessParams, body: TextInputBody } }, async (request, reply) => {
    const data = Buffer.from(request.body.data, 'utf8');
    await processes.writePty(request.principal, parsePublicId(request.params.id), parsePid(request.params.pid), data, callerSignal(reply));
    return {};
  });

  app.patch('/sandboxes/:id/pty/:pid', { schema: { params: ProcessParams, body: ResizeBody } }, async (request, reply) => {
    await processes.resizePty(request.principal, parsePublicId(request.params.id), parsePid(request.params.pid), request.body.size, callerSignal(reply));
    return {};
  });

  app.delete('/sandboxes/:id/pty/:pid', { schema: { params: ProcessParams } }, async (request, reply) => ({
    killed: await processes.killPty(request.principal, parsePublicId(request.params.id), parsePid(request.params.pid), callerSignal(reply)),
  }));

  app.get('/sandboxes/:id/pty/:pid/stream', { schema: { params: ProcessParams } }, async (request, reply) => {
    const signal = callerSignal(reply, stopping.draining);
    const events = await processes.ptyOutput(request.principal, parsePublicId(request.params.id), parsePid(request.params.pid), signal);
    await sendEventStream(reply, ptyFrames(events));
  });
}
