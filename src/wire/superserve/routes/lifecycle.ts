import type { Scope, RouteDependencies } from '../dependencies.ts';
import { parseId } from '../ids.ts';
import { notAvailable } from '../errors.ts';
import { presentSandbox } from '../present.ts';
import { statusOf } from '../status.ts';
import { goneError, unusable } from '../../../core/ended.ts';
import { notFound, SandboxParams } from './sandboxes.ts';

/** Pause, resume and activate (contract, section 4.6). */
export function lifecycleRoutes(app: Scope, deps: RouteDependencies): void {
  const { sandboxes, tokens } = deps;

  app.post('/sandboxes/:id/activate', { schema: { params: SandboxParams } }, async (request) => {
    const sandbox = await sandboxes.get(request.principal, parseId(request.params.id));
    const status = statusOf(sandbox);
    if (status === 'deleted') throw notFound(request.params.id);
    if (status === 'failed') throw goneError(sandbox.end);
    const reason = unusable(sandbox);
    if (reason !== null) throw reason;
    return { ...presentSandbox(sandbox), access_token: tokens.issue(sandbox.id) };
  });

  app.post('/sandboxes/:id/pause', async () => {
    throw notAvailable('Pausing sandboxes');
  });

  app.post('/sandboxes/:id/resume', async () => {
    throw notAvailable('Resuming sandboxes');
  });
}
