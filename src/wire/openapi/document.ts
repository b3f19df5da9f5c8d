import type { FastifyInstance } from 'fastify';
import type { TSchema } from 'typebox';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The route only says that this version has no engine for it. */
    unavailable?: boolean;
  }
}

/** A route as it was registered. */
export interface Route {
  readonly method: string;
  /** With the wire's prefix, parameters as `:name`. */
  readonly url: string;
  readonly params?: TSchema | undefined;
  readonly query?: TSchema | undefined;
  readonly body?: TSchema | undefined;
}

/** What a person should know about a route and its schemas do not say. */
export interface Operation {
  readonly summary: string;
  /** Heading it stands under. */
  readonly tag: string;
  /** Of an answer that succeeds; 200 by default. */
  readonly status?: number;
  /** Of that answer: `application/json` by default, null for none. */
  readonly produces?: string | null;
  /** Where the route checks the body itself. */
  readonly body?: TSchema;
  /** Of a body that is not JSON. */
  readonly consumes?: string;
  readonly query?: TSchema;
  readonly headers?: Readonly<Record<string, string>>;
}

/** One protocol, as its document shows it. */
export interface Protocol {
  readonly title: string;
  readonly description: string;
  /** Base URLs, relative to the server's own. */
  readonly server: string;
  /** The path that a client uses for a route; null for routes of others. */
  readonly pathOf: (url: string) => string | null;
  /** By `METHOD /path` as clients see it, parameters as `:name`. */
  readonly operations: Readonly<Record<string, Operation>>;
  readonly security: Readonly<Record<string, object>>;
  /** Another way in than all of `security`, one of its names, for some paths. */
  readonly securityOf?: (path: string) => string | null;
  readonly error: TSchema;
}

/** Listens to the routes that are added to an instance from here on; those that nobody can use are left out. */
export function collectRoutes(app: FastifyInstance): readonly Route[] {
  const routes: Route[] = [];
  app.addHook('onRoute', ({ url, method, schema, config }) => {
    if (config?.unavailable === true) return;
    const { params, querystring, body } = (schema ?? {}) as { params?: TSchema; querystring?: TSchema; body?: TSchema };
    for (const each of [method].flat()) routes.push({ method: each, url, params, query: querystring, body });
  });
  return routes;
}

/** The routes of a protocol as OpenAPI 3.1, whose schemas are JSON Schema, and so the routes' own. */
export function describe(protocol: Protocol, routes: readonly Route[], version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    const path = protocol.pathOf(route.url);
    const method = route.method.toLowerCase();
    if (path === null || !['get', 'post', 'put', 'patch', 'delete'].includes(method)) continue;
    (paths[templated(path)] ??= {})[method] = operationOf(protocol, route, path);
  }
  const names = Object.keys(protocol.security);
  return {
    openapi: '3.1.0',
    info: { title: protocol.title, version, description: protocol.description },
    servers: [{ url: protocol.server }],
    security: names.filter((name) => protocol.securityOf === undefined || name === names[0]).map((name) => ({ [name]: [] })),
    paths: Object.fromEntries(Object.entries(paths).sort(([a], [b]) => (a < b ? -1 : 1))),
    components: { securitySchemes: protocol.security, schemas: { Error: protocol.error } },
  };
}

function operationOf(protocol: Protocol, route: Route, path: string): object {
  const told: Partial<Operation> = protocol.operations[`${route.method} ${path}`] ?? {};
  const { summary, tag, status = 200, produces = 'application/json', consumes, headers = {} } = told;
  const body = route.body ?? told.body;
  const way = protocol.securityOf?.(path) ?? null;
  const parameters = [
    ...[...path.matchAll(/:(\w+)|\*/g)].map(([, name = 'path']) => ({ name, in: 'path', required: true, schema: propertiesOf(route.params)[name] ?? { type: 'string' } })),
    ...Object.entries(propertiesOf(route.query ?? told.query)).map(([name, schema]) => ({ name, in: 'query', required: requiredOf(route.query ?? told.query).includes(name), schema })),
    ...Object.entries(headers).map(([name, description]) => ({ name, in: 'header', required: false, description, schema: { type: 'string' } })),
  ];
  const content = consumes !== undefined ? { [consumes]: { schema: {} } } : body !== undefined ? { 'application/json': { schema: body } } : null;
  return {
    operationId: operationId(route.method, path),
    ...(summary === undefined ? {} : { summary }),
    ...(tag === undefined ? {} : { tags: [tag] }),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(content === null ? {} : { requestBody: { required: consumes !== undefined || requiredOf(body).length > 0, content } }),
    ...(way === null ? {} : { security: [{ [way]: [] }] }),
    responses: {
      [status]: { description: status === 204 ? 'Done; no content.' : 'It succeeded.', ...(produces === null || status === 204 ? {} : { content: { [produces]: { schema: {} } } }) },
      default: { description: 'It failed.', content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } } },
    },
  };
}

/** `/sandboxes/:id` as `/sandboxes/{id}`. */
function templated(path: string): string {
  return path.replaceAll(/:(\w+)/g, '{$1}').replaceAll('*', '{path}');
}

function operationId(method: string, path: string): string {
  const words = path.split(/[^A-Za-z0-9]+/).filter(Boolean);
  return method.toLowerCase() + words.map((word) => word[0]!.toUpperCase() + word.slice(1)).join('');
}

function propertiesOf(schema: TSchema | undefined): Readonly<Record<string, object>> {
  return (schema as { properties?: Record<string, object> } | undefined)?.properties ?? {};
}

function requiredOf(schema: TSchema | undefined): readonly string[] {
  return (schema as { required?: readonly string[] } | undefined)?.required ?? [];
}
