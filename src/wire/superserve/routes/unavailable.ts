import type { HTTPMethods } from 'fastify';
import type { Scope } from '../dependencies.ts';
import { notAvailable } from '../errors.ts';

/** Endpoints of the contract that this version does not have yet, told after authentication. */
const unavailable: readonly (readonly [what: string, methods: readonly HTTPMethods[], paths: readonly string[]])[] = [
  ['Teams and roles', ['GET', 'POST', 'DELETE'], ['/teams/*']],
  ['Billing', ['GET', 'POST'], ['/billing/*', '/stripe/*']],
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
          throw notAvailable(what);
        },
      });
    }
  }
}
