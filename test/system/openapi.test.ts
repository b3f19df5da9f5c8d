import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import puppeteer from 'puppeteer-core';
import { call } from '../harness/http.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { declawProtocol } from '../../src/wire/declaw/openapi.ts';
import { superserveProtocol } from '../../src/wire/superserve/openapi.ts';

const server = serverOfThisFile();
const protocols = { declaw: declawProtocol, superserve: superserveProtocol } as const;

for (const [name, protocol] of Object.entries(protocols)) {
  test(`the document of ${name} is valid OpenAPI 3.1, and has every call that its table describes`, async () => {
    const { status, json, headers } = await call(server.url, 'GET', `/openapi/${name}.json`);
    assert.equal(status, 200);
    assert.match(headers['content-type'] ?? '', /^application\/json/);
    const validator = new Validator();
    const result = await validator.validate(json);
    assert.equal(result.valid, true, JSON.stringify(result.errors)?.slice(0, 2000));
    assert.equal(validator.version, '3.1');
    const there = new Set(Object.entries(json.paths).flatMap(([path, operations]) => Object.keys(operations as object).map((method) => `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`)));
    for (const described of Object.keys(protocol.operations)) assert.ok(there.has(described), `${described} is described and does not exist`);
    const ids = Object.values(json.paths).flatMap((operations) => Object.values(operations as object).map((each) => each.operationId));
    assert.equal(new Set(ids).size, ids.length, 'two operations have one id');
    assert.ok(ids.length >= 30);
  });
}

test('the schemas in the documents are those that requests are checked with', async () => {
  const { paths } = (await call(server.url, 'GET', '/openapi/declaw.json')).json;
  const body = paths['/sandboxes'].post.requestBody.content['application/json'].schema;
  assert.equal(body.properties.timeout.maximum, 315_360_000);
  const { status, json } = await server.call('POST', '/sandboxes', { json: { timeout: body.properties.timeout.maximum + 1 } });
  assert.deepEqual([status, json.message], [400, `timeout must be at most ${body.properties.timeout.maximum}.`]);
  const superserve = (await call(server.url, 'GET', '/openapi/superserve.json')).json.paths;
  assert.equal(superserve['/sandboxes'].post.requestBody.content['application/json'].schema.additionalProperties, false);
  assert.deepEqual(superserve['/exec'].post.security, [{ token: [] }]);
});

test('what this version has no engine for is in no document', async () => {
  const declaw = (await call(server.url, 'GET', '/openapi/declaw.json')).json.paths;
  assert.ok(!('/accounts' in declaw));
  assert.ok(!('/openapi/declaw.json' in declaw) && !('/superserve/sandboxes' in declaw));
});

test('an attack on the files of the viewer gets nothing but those of the page', async () => {
  for (const path of ['/docs/package.json', '/docs/index.html', '/docs/..%2fpackage.json', '/docs/%2e%2e/%2e%2e/package.json', '/docs/../package.json', '/docs/__proto__', '/docs/constructor', '/docs/swagger-ui.js.map', '/docs/oauth2-redirect.html', '/docs/%00']) {
    const { status, text } = await call(server.url, 'GET', path);
    assert.ok([400, 404].includes(status), `${path}: ${status}`);
    assert.ok(!text.includes('swagger-ui-dist'), path);
  }
});

test('the page works in a browser with no other host and nothing against its policy', async () => {
  const { headers } = await call(server.url, 'GET', '/docs');
  assert.match(String(headers['content-security-policy']), /^default-src 'none'; script-src 'self'; style-src 'self' 'sha256-[^ ;]+';/);
  assert.ok(!String(headers['content-security-policy']).includes('unsafe'));
  const browser = await puppeteer.launch({ executablePath: '/usr/bin/chromium-headless-shell', headless: 'shell', args: ['--no-sandbox', '--disable-quic'] });
  try {
    const page = await browser.newPage();
    const [asked, complaints]: [string[], string[]] = [[], []];
    page.on('request', (request) => asked.push(request.url()));
    page.on('console', (message) => complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(String(error)));
    await page.goto(`${server.url}/docs`);
    await page.waitForSelector('.opblock-summary-path', { timeout: 30_000 });
    const shown = (await page.$$('.opblock-summary-path')).length;
    assert.ok(shown > 40, `${shown} operations are shown`);
    // Nothing that asks for styles in the page itself or runs text as a program.
    assert.deepEqual(complaints.filter((each) => /Content.Security.Policy|Refused|violates/i.test(each)), []);
    assert.deepEqual(asked.filter((each) => !each.startsWith(server.url) && !each.startsWith('data:')), []);
  } finally {
    await browser.close();
  }
});
