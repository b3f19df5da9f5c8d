import { PaddockError } from '../../../core/errors.ts';
import type { Principal } from '../../../core/principal.ts';
import type { Sandbox } from '../../../core/sandbox.ts';
import { ServerTiming } from '../../server-timing.ts';
import { bodyReader, strict } from '../body.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { SuperserveError } from '../errors.ts';
import { parseId } from '../ids.ts';
import { presentSandbox, presentSecrets } from '../present.ts';
import { statusOf } from '../status.ts';
import { notFound, SandboxParams } from './sandboxes.ts';

const readNothing = bodyReader(strict({}));

/** Pause, resume and activate (contract, section 4.6). */
export function lifecycleRoutes(app: Scope, { sandboxes, tokens, secretAttachments }: RouteDependencies): void {
  app.post('/sandboxes/:id/pause', { schema: { params: SandboxParams } }, async (request, reply) => {
    readNothing(request.body);
    const sandbox = await living(request.principal, request.params.id, 'paused');
    const timing = new ServerTiming();
    const pausing = sandboxes.pause(request.principal, { id: sandbox.id }, timing.lap);
    if (/\brespond-async\b/i.test(String(request.headers['prefer'] ?? '')) && sandbox.state === 'running') {
      // Its failure shows in the sandbox's status, and in the events.
      pausing.catch(() => {});
      return reply.code(202).header('retry-after', 1).send({ status: 'pausing' });
    }
    await pausing;
    return reply.code(204).header('server-timing', timing.header).send();
  });

  app.post('/sandboxes/:id/resume', { schema: { params: SandboxParams } }, async (request, reply) => {
    readNothing(request.body);
    const { id } = await living(request.principal, request.params.id, 'resumed');
    const timing = new ServerTiming();
    await withItsFiles(sandboxes.resume(request.principal, { id }, timing.lap));
    return reply.header('server-timing', timing.header).send({ id, status: 'active', access_token: tokens.issue(id) });
  });

  app.post('/sandboxes/:id/activate', { schema: { params: SandboxParams } }, async (request) => {
    readNothing(request.body);
    const { id } = await living(request.principal, request.params.id, 'activated');
    const sandbox = await withItsFiles(sandboxes.activate(request.principal, { id }));
    return { ...presentSandbox(sandbox), ...presentSecrets(await secretAttachments.list(sandbox)), access_token: tokens.issue(id) };
  });

  /** One that may change its state at all. */
  async function living(principal: Principal, name: string, becoming: string): Promise<Sandbox> {
    const sandbox = await sandboxes.get(principal, parseId(name));
    const status = statusOf(sandbox);
    if (status === 'deleted') throw notFound(name);
    if (status === 'failed') throw new PaddockError('conflict', `the sandbox has failed (${sandbox.end?.reason ?? 'unknown'}) and cannot be ${becoming}; delete it`);
    return sandbox;
  }
}

/** The sandbox is there: what is not found is what it was saved to. */
export async function withItsFiles<T>(resuming: Promise<T>): Promise<T> {
  try {
    return await resuming;
  } catch (error) {
    if (PaddockError.from(error).detail.reason !== 'snapshot_missing') throw error;
    throw new SuperserveError(503, 'host_state_missing', PaddockError.from(error).message, { cause: error });
  }
}
