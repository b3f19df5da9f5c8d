import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrontDoor } from './front-door.ts';

async function opened(): Promise<{ door: FrontDoor; url: string } & AsyncDisposable> {
  const door = new FrontDoor('1.0');
  const url = await door.listen('127.0.0.1', 0);
  return { door, url, [Symbol.asyncDispose]: async () => door.close() };
}

test('before anybody is at home it says that it lives, and refuses the rest as something to be repeated', async () => {
  await using place = await opened();
  const health = await fetch(`${place.url}/health`);
  assert.deepEqual([health.status, await health.json()], [200, { status: 'ok', version: '1.0' }]);
  for (const path of ['/ready', '/sandboxes', '/superserve/sandboxes', '/metrics']) {
    const answer = await fetch(`${place.url}${path}`);
    const body = (await answer.json()) as { status: string; code: string; error: { message: string } };
    assert.deepEqual([answer.status, answer.headers.get('retry-after'), body.status, body.code], [503, '1', 'recovering', 'no_capacity'], path);
    assert.match(body.error.message, /starting/);
  }
});

test('what is asked of a program inside a sandbox is not answered for it', async () => {
  await using place = await opened();
  const { request } = await import('node:http');
  const status = await new Promise<number>((resolve) => request(`${place.url}/health`, { headers: { host: '3000-abc.sandbox.localhost' } }, (response) => resolve(response.resume().statusCode!)).end());
  assert.equal(status, 503);
});

test('an upgrade that comes too early is answered in plain HTTP', async () => {
  await using place = await opened();
  const { connect } = await import('node:net');
  const socket = connect(Number(new URL(place.url).port), '127.0.0.1');
  socket.write('GET /terminal HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  let text = '';
  for await (const piece of socket) text += String(piece);
  assert.match(text, /^HTTP\/1\.1 503 /);
});

test('localhost is both loopback addresses, where there are two', async () => {
  const door = new FrontDoor('1.0');
  const url = await door.listen('localhost', 0);
  assert.equal((await fetch(`${url}/health`)).status, 200);
  const six = await fetch(`http://[::1]:${new URL(url).port}/health`).then((answer) => answer.status, () => 'no IPv6');
  assert.ok(six === 200 || six === 'no IPv6');
  await door.close();
  await assert.rejects(fetch(`${url}/health`));
});
