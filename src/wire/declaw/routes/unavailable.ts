import type { HTTPMethods } from 'fastify';
import { PaddockError } from '../../../core/errors.ts';
import type { Scope } from '../dependencies.ts';

/**
 * Endpoints of the contract that this version does not have yet. They answer 422 after authentication: a 5xx would be repeated by
 * the SDKs, and a 404 would say that the sandbox is missing.
 */
const unavailable: readonly (readonly [what: string, methods: readonly HTTPMethods[], paths: readonly string[]])[] = [
  ['Governance packs', ['GET'], ['/governance/packs', '/governance/packs/:name']],
  ['Accounts', ['GET'], ['/auth/me']],
  ['Accounts', ['GET', 'POST', 'DELETE'], ['/accounts', '/accounts/*']],
];

/** Answers for what comes with a later version. */
export function unavailableRoutes(app: Scope): void {
  for (const [what, methods, paths] of unavailable) {
    for (const url of paths) {
      app.route({
        url,
        method: [...methods],
        config: { unavailable: true },
        handler: async () => {
          throw new PaddockError('unprocessable', `${what}: not available in this version of Paddock.`);
        },
      });
    }
  }
}
