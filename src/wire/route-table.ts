import type { FastifyInstance } from 'fastify';

/** Which methods a path has; the router only says whether one method has it. */
export interface RouteTable {
  methodsOf(path: string): readonly string[];
}

/** Listens to the routes that are added to an instance from here on. */
export function listRoutes(app: FastifyInstance): RouteTable {
  const routes: { readonly pattern: RegExp; readonly methods: readonly string[] }[] = [];
  app.addHook('onRoute', (route) => {
    routes.push({ pattern: patternOf(route.url), methods: [route.method].flat() });
  });
  return {
    methodsOf: (path) => [...new Set(routes.filter((each) => each.pattern.test(path)).flatMap((each) => each.methods))].sort(),
  };
}

/** `/sandboxes/:id/files` and `/volumes/*` as regular expressions; each segment matches without backtracking. */
function patternOf(url: string): RegExp {
  const segments = url.split('/').map((segment) => {
    if (segment === '*') return '.*';
    if (segment.startsWith(':')) return '[^/]+';
    return segment.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
  });
  return new RegExp(`^${segments.join('/')}/?$`, 's');
}
