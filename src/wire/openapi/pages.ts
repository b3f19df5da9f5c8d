import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { PaddockError } from '../../core/errors.ts';
import { describe, type Protocol, type Route } from './document.ts';

/** Files of the viewer that the page asks for; nothing else of its package is given away. */
const assets: Readonly<Record<string, string>> = Object.freeze({
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
  'swagger-ui-standalone-preset.js': 'text/javascript; charset=utf-8',
  'favicon-32x32.png': 'image/png',
});

/** The one style that the viewer writes into the page itself, by what it says. */
const ownStyle = "'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='";

/** Scripts and styles of this server only: whoever finds a way to write into the page cannot run anything there, or send keys away. */
const headers = {
  'content-security-policy': `default-src 'none'; script-src 'self'; style-src 'self' ${ownStyle}; img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
} as const;

/** The OpenAPI document of each protocol, and a page to read them with that needs nothing from elsewhere. */
export function openApiRoutes(app: FastifyInstance, protocols: Readonly<Record<string, Protocol>>, routes: readonly Route[], version: string): void {
  const names = Object.keys(protocols);
  for (const [name, protocol] of Object.entries(protocols)) {
    let text: string | null = null;
    app.get(`/openapi/${name}.json`, async (_request, reply) => {
      text ??= JSON.stringify(describe(protocol, routes, version)); // the first time, when every route is known
      return reply.headers(headers).type('application/json; charset=utf-8').send(text);
    });
  }
  const urls = names.map((name) => ({ name: protocols[name]!.title, url: `/openapi/${name}.json` }));
  app.get('/docs', async (_request, reply) => reply.headers(headers).type('text/html; charset=utf-8').send(page));
  app.get('/docs/page.js', async (_request, reply) => reply.headers(headers).type('text/javascript; charset=utf-8').send(script(urls)));
  app.get('/docs/:file', async (request, reply) => {
    const { file } = request.params as { file: string };
    const type = Object.hasOwn(assets, file) ? assets[file] : undefined;
    if (type === undefined) throw new PaddockError('not_found', `there is nothing at /docs/${file.slice(0, 80)}; the page is at /docs`);
    return reply.headers(headers).header('cache-control', 'max-age=3600').type(type).send(await asset(file));
  });
}

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Paddock API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="page"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/swagger-ui-standalone-preset.js"></script>
<script src="/docs/page.js"></script>
</body>
</html>
`;

function script(urls: readonly { readonly name: string; readonly url: string }[]): string {
  return `SwaggerUIBundle({
  urls: ${JSON.stringify(urls)},
  dom_id: '#page',
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  layout: 'StandaloneLayout',
  validatorUrl: null,
  queryConfigEnabled: false,
});
`;
}

const directory = dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'));
const read = new Map<string, Promise<Buffer>>();

/** Kept in memory once it was asked for: 2 MiB at most. */
function asset(file: string): Promise<Buffer> {
  let bytes = read.get(file);
  if (bytes === undefined) read.set(file, (bytes = readFile(join(directory, file))));
  return bytes;
}
