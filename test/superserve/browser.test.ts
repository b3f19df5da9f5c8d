import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import { after, test } from 'node:test';
import type { Frame, Page } from 'puppeteer-core';
import { openBrowser, type TestBrowser } from '../harness/browser.ts';
import { freePort, prepare, serverOfThisFile } from '../harness/server.ts';
import { control, exec, gatewayOfThisFile, inside, make, type Made } from '../harness/superserve.ts';
import { eventually } from '../harness/wait.ts';

// What only a browser can show: that it keeps the cookie of a private preview and sends it along, and that it holds foreign pages off the data
// plane. It comes through `paddock gateway superserve`, by TLS with the gateway's own authority.

const cookie = '__Host-superserve_preview_token';
const [ownPort, foreignPort] = [await freePort(), await freePort()];
const [own, foreign] = [`http://127.0.0.1:${ownPort}`, `http://127.0.0.1:${foreignPort}`];

const server = serverOfThisFile({ PADDOCK_SUPERSERVE_TEAM_RATE: '0', PADDOCK_SUPERSERVE_ORIGINS: own });
const gateway = gatewayOfThisFile(server);
let opened: TestBrowser;
const pages: Server[] = [];
prepare(async () => {
  opened = await openBrowser(gateway.environment['HTTPS_PROXY']!, gateway.environment['NODE_EXTRA_CA_CERTS']!);
  for (const port of [ownPort, foreignPort]) {
    const page = createServer((_request, response) => response.setHeader('content-type', 'text/html').end('<!doctype html><title>page</title>'));
    await new Promise<void>((resolve) => page.listen(port, '127.0.0.1', resolve));
    pages.push(page);
  }
});
after(async () => {
  for (const page of pages) {
    page.close();
    page.closeAllConnections();
  }
  await opened?.[Symbol.asyncDispose]();
});

/** A page that has something to load, a program that writes down all it is asked, and a WebSocket that says its path. */
const program = String.raw`
const http = require('http'), crypto = require('crypto');
const seen = [];
const server = http.createServer((request, response) => {
  if (request.url === '/seen') return response.end(JSON.stringify(seen));
  seen.push([request.method, request.url, request.rawHeaders]);
  if (request.url === '/icon.png' || request.url === '/favicon.ico') return response.end();
  response.setHeader('Content-Type', 'text/html');
  response.setHeader('Set-Cookie', 'mine=1; Path=/; Secure; SameSite=None; Partitioned');
  response.end('<!doctype html><title>app</title><img src="/icon.png"><p>' + request.url + '</p>');
});
server.on('upgrade', (request, socket) => {
  seen.push(['WS', request.url, request.rawHeaders]);
  const accept = crypto.createHash('sha1').update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ' + accept + '\r\n\r\n');
  const text = Buffer.from(request.url);
  socket.write(Buffer.concat([Buffer.of(0x81, text.length), text]));
});
server.listen(3000, '127.0.0.1');
`;

/** What a script of this page or frame gets: status and text, or the browser's refusal. */
function fetched(where: Page | Frame, url: string, options: RequestInit = {}): Promise<string> {
  return where.evaluate((target, init) => fetch(target, init).then(async (answer) => `${answer.status} ${await answer.text()}`, (error: Error) => `refused: ${error.name}`), url, options);
}

/** The first frame that a WebSocket of this page brings, or that it was closed before. */
function firstFrame(where: Page | Frame, url: string, protocols: string[] = []): Promise<string> {
  return where.evaluate(
    (target, offered) =>
      new Promise<string>((resolve) => {
        const socket = new WebSocket(target, offered);
        socket.binaryType = 'arraybuffer';
        socket.addEventListener('message', ({ data }) => resolve(typeof data === 'string' ? data : `${(data as ArrayBuffer).byteLength} bytes`));
        socket.addEventListener('close', () => resolve('closed'));
      }),
    url,
    protocols,
  );
}

test('previews (contract 12): a link becomes a cookie that pages, images, frames and WebSockets carry until the tokens are rotated', async () => {
  const made = await make(server, { from_template: 'superserve/node-22', preview_access: 'private' });
  const site = `https://3000-${made.id}.sandbox.superserve.ai`;
  await inside(server, made, 'POST', '/files?path=/srv/app.js', { body: program });
  await exec(server, made, 'node /srv/app.js >/dev/null 2>&1 </dev/null &');
  await eventually(async () => (await exec(server, made, 'curl -s -o /dev/null http://127.0.0.1:3000/seen')).exit_code === 0, { withinMs: 30_000 });
  await control(server, 'POST', `/sandboxes/${made.id}/preview-ports`, { json: { port: 3000 } });
  const issue = async (): Promise<string> => (await control(server, 'POST', `/sandboxes/${made.id}/preview-ports/3000/token`, { json: { expires_in_seconds: 600 } })).json.token;
  const token = await issue();
  const page = await opened.browser.newPage();

  assert.equal((await page.goto(`${site}/`))?.status(), 401);

  const answer = await page.goto(`${site}/page?a=1&superserve_preview_token=${token}&b=2#part`);
  const [redirect] = answer!.request().redirectChain();
  assert.deepEqual([redirect?.response()?.status(), answer?.status(), page.url()], [302, 200, `${site}/page?a=1&b=2#part`]);
  assert.equal(answer?.securityDetails()?.issuer(), 'Paddock gateway on this machine');
  assert.equal(await page.$eval('p', (element) => element.textContent), '/page?a=1&b=2');
  // Only the program's own can be read by a script.
  assert.equal(await page.evaluate('document.cookie'), 'mine=1');
  const kept = (await opened.browser.cookies()).find(({ name }) => name === cookie);
  assert.deepEqual([kept?.value, kept?.domain, kept?.path, kept?.secure, kept?.httpOnly, kept?.sameSite, kept?.partitionKey !== undefined], [token, new URL(site).hostname, '/', true, true, 'None', true]);
  assert.ok(Math.abs(kept!.expires - Date.now() / 1000 - 600) < 30);
  assert.match(await fetched(page, '/data'), /^200 /);
  assert.match(await fetched(page, '/data', { method: 'POST', body: 'x' }), /^200 /);
  assert.equal(await firstFrame(page, `${site.replace('https', 'wss')}/ws?q=1`), '/ws?q=1');

  // Inside a page of another site the cookie has a jar of its own.
  const outer = await opened.browser.newPage();
  await outer.goto(own);
  const framed = async (path: string): Promise<Frame> => {
    await outer.setContent(`<iframe src="${site}${path}"></iframe>`);
    return outer.frames().findLast((frame) => frame.url().startsWith(site))!;
  };
  const frame = await framed(`/framed?superserve_preview_token=${token}`);
  assert.equal(frame.url(), `${site}/framed`);
  assert.match(await fetched(frame, '/from-frame'), /^200 /);
  assert.equal(await firstFrame(frame, `${site.replace('https', 'wss')}/framed-ws`), '/framed-ws');

  const seen = JSON.parse((await fetched(page, '/seen')).slice(4)) as [method: string, url: string, headers: string[]][];
  for (const each of [['GET', '/page?a=1&b=2'], ['GET', '/icon.png'], ['GET', '/data'], ['POST', '/data'], ['WS', '/ws?q=1'], ['GET', '/framed'], ['GET', '/from-frame'], ['WS', '/framed-ws']]) {
    assert.ok(seen.some(([method, url]) => method === each[0] && url === each[1]), each.join(' '));
  }
  assert.doesNotMatch(JSON.stringify(seen), /spv1|superserve[_-]preview[_-]token/i);
  // It can tell that its address begins with https, or it would send browsers there for ever.
  assert.ok(seen.every(([, , headers]) => headers[headers.indexOf('X-Forwarded-Proto') + 1] === 'https'));
  // Its own cookie does get there.
  assert.ok(seen.some(([, url, headers]) => url === '/data' && headers.includes('mine=1')));

  const stranger = await opened.browser.createBrowserContext();
  assert.equal((await (await stranger.newPage()).goto(`${site}/page`))?.status(), 401);
  await stranger.close();

  await control(server, 'POST', `/sandboxes/${made.id}/preview-ports/3000/token/rotate`);
  assert.match(await fetched(page, '/data'), /^401 /);
  assert.match(await fetched(frame, '/from-frame'), /^401 /);
  assert.equal(await firstFrame(page, `${site.replace('https', 'wss')}/ws`), 'closed');
  assert.equal((await page.reload())?.status(), 401);
  assert.equal((await page.goto(`${site}/old?superserve_preview_token=${token}`))?.status(), 401);
  assert.equal((await page.goto(`${site}/new?superserve_preview_token=${await issue()}`))?.status(), 200);
  for (const each of [page, outer]) await each.close();
  await control(server, 'DELETE', `/sandboxes/${made.id}`);
});

test('the data plane (contract 5): pages of configured origins use it, and the browser keeps all others out', async () => {
  const made: Made = await make(server);
  const host = `boxd-${made.id}.sandbox.superserve.ai`;
  const run = (where: Page, command: string, token = made.token): Promise<string> =>
    fetched(where, `https://${host}/exec`, { method: 'POST', headers: { 'X-Access-Token': token, 'Content-Type': 'application/json' }, body: JSON.stringify({ command }) });
  const terminal = (where: Page): Promise<string> => firstFrame(where, `wss://${host}/terminal`, ['superserve.terminal.v1', `token.${made.token}`]);

  const console = await opened.browser.newPage();
  await console.goto(own);
  const said = await run(console, 'echo from a page');
  assert.equal(said, '200 {"stdout":"from a page\\n","stderr":"","exit_code":0}');
  const file = `https://${host}/files?path=/tmp/page`;
  assert.match(await fetched(console, file, { method: 'POST', headers: { 'X-Access-Token': made.token }, body: 'uploaded' }), /^200 /);
  assert.equal(await fetched(console, file, { headers: { 'X-Access-Token': made.token } }), '200 uploaded');
  // What is refused can be read, or the page would not know to ask for another token.
  assert.match(await run(console, 'true', 'x'), /^401 .*auth_failed/);
  assert.match(await terminal(console), /^\d+ bytes$/);

  const evil = await opened.browser.newPage();
  await evil.goto(foreign);
  assert.equal(await run(evil, 'touch /tmp/evil'), 'refused: TypeError');
  assert.equal(await fetched(evil, file, { headers: { 'X-Access-Token': made.token } }), 'refused: TypeError');
  assert.equal(await terminal(evil), 'closed');
  assert.equal((await exec(server, made, 'test -e /tmp/evil')).exit_code, 1);
  for (const each of [console, evil]) await each.close();
  await control(server, 'DELETE', `/sandboxes/${made.id}`);
});
