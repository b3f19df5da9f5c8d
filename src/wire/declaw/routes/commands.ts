import type { FastifyReply } from 'fastify';
import type { Static } from 'typebox';
import { PaddockError } from '../../../core/errors.ts';
import type { CommandResult, RunInput } from '../../../core/processes.ts';
import { callerSignal } from '../../caller.ts';
import { sendEventStream } from '../../event-stream.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { parsePublicId } from '../ids.ts';
import { parsePid } from '../pid.ts';
import { ProcessParams, SandboxParams } from '../schemas/common.ts';
import { CommandBody, TextInputBody } from '../schemas/processes.ts';
import { commandFrames } from '../sse.ts';

/** Seconds a command may run when its request does not say. */
const defaultTimeoutSeconds = 60;

/** Commands: in the foreground, in the background, and streamed (contract, section 2.3). */
export function commandRoutes(app: Scope, deps: RouteDependencies): void {
  const { processes, stopping } = deps;

  app.post('/sandboxes/:id/commands', { schema: { params: SandboxParams, body: CommandBody } }, async (request, reply) => {
    const ref = parsePublicId(request.params.id);
    const input = runInput(request.body);
    if (request.body.background === true) {
      // Input stays open: the TypeScript client cannot ask for it, and its users send it all the same.
      const started = await processes.startBackground(request.principal, ref, { ...input, stdin: true }, callerSignal(reply));
      return { pid: started.pid };
    }
    return commandResult(await untilStopped(reply, (signal) => processes.run(request.principal, ref, input, signal)));
  });

  app.post('/sandboxes/:id/commands/stream', { schema: { params: SandboxParams, body: CommandBody } }, async (request, reply) => {
    const signal = callerSignal(reply, stopping.draining);
    const events = await processes.stream(request.principal, parsePublicId(request.params.id), runInput(request.body), signal);
    await sendEventStream(reply, commandFrames(events, stopping.draining));
  });

  app.get('/sandboxes/:id/commands', { schema: { params: SandboxParams } }, async (request, reply) => {
    const listed = await processes.listBackground(request.principal, parsePublicId(request.params.id), callerSignal(reply));
    return listed.map((each) => ({ pid: each.pid, cmd: each.cmd, is_pty: each.kind === 'pty', envs: each.env }));
  });

  app.get('/sandboxes/:id/commands/:pid/wait', { schema: { params: ProcessParams } }, async (request, reply) => {
    const ref = parsePublicId(request.params.id);
    const pid = parsePid(request.params.pid);
    const result = await untilStopped(reply, (signal) => processes.wait(request.principal, ref, pid, signal));
    return result === null ? { stdout: '', stderr: 'process not found', exit_code: 1 } : commandResult(result);
  });

  app.delete('/sandboxes/:id/commands/:pid', { schema: { params: ProcessParams } }, async (request, reply) => ({
    killed: await processes.killByPid(request.principal, parsePublicId(request.params.id), parsePid(request.params.pid), callerSignal(reply)),
  }));

  app.post('/sandboxes/:id/commands/:pid/stdin', { schema: { params: ProcessParams, body: TextInputBody } }, async (request, reply) => {
    const data = Buffer.from(request.body.data, 'utf8');
    await processes.writeStdin(request.principal, parsePublicId(request.params.id), parsePid(request.params.pid), data, callerSignal(reply));
    return {};
  });

  /**
   * Runs an action that may take long. When the server stops before it is over, the answer is a conflict: a 5xx or a cut connection would
   * make the SDKs run the command again.
   */
  async function untilStopped<T>(reply: FastifyReply, action: (signal: AbortSignal) => Promise<T>): Promise<T> {
    try {
      return await action(callerSignal(reply, stopping.expired));
    } catch (error) {
      if (stopping.expired.aborted) throw new PaddockError('conflict', 'The server was stopped before the command was over.', {}, { cause: error });
      throw error;
    }
  }
}

function runInput(body: Static<typeof CommandBody>): RunInput {
  return {
    cmd: body.cmd,
    ...(body.user ? { user: body.user } : {}),
    ...(body.cwd ? { cwd: body.cwd } : {}),
    ...(body.envs === undefined ? {} : { envs: body.envs }),
    timeoutSeconds: body.timeout ?? defaultTimeoutSeconds,
    stdin: body.stdin ?? false,
  };
}

function commandResult(result: CommandResult): object {
  return { stdout: result.stdout, stderr: result.stderr, exit_code: result.exitCode, pid: result.pid, ...(result.truncated ? { truncated: true } : {}) };
}
