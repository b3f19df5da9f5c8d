import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { NotEnoughSpaceError } from '@declaw/sdk';
import { open } from '../harness/http.ts';
import { residentBytes } from '../harness/machine.ts';
import { output, sandboxOfThisFile } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually, within } from '../harness/wait.ts';

const mebibyte = 1024 * 1024;
const server = serverOfThisFile();
const sandbox = sandboxOfThisFile();
const raw = (path: string): string => `/sandboxes/${sandbox().sandboxId}/files/raw?path=${encodeURIComponent(path)}`;

/** The server's largest resident memory while the work goes on, in bytes. */
async function peakWhile(work: () => Promise<void>): Promise<number> {
  let peak = 0;
  const timer = setInterval(() => (peak = Math.max(peak, residentBytes(server.pid))), 20);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  return peak;
}

test('300 MiB stream in and out while the server\'s memory stays where it was', async () => {
  const size = 300 * mebibyte;
  const block = Buffer.alloc(mebibyte, 'paddock ');
  const sent = createHash('sha256');
  for (let i = 0; i < 300; i++) sent.update(block);
  const digest = sent.digest('hex');
  await server.call('PUT', raw('/home/user/warm-up'), { body: Buffer.alloc(8 * mebibyte) });
  const before = residentBytes(server.pid);

  const peak = await peakWhile(async () => {
    const blocks = Readable.from((function* () { for (let i = 0; i < 300; i++) yield block; })());
    const put = await server.call('PUT', raw('/home/user/300m'), { body: blocks });
    assert.deepEqual([put.status, put.json], [200, { path: '/home/user/300m', size }]);
    const answer = await open(server.url, 'GET', raw('/home/user/300m'), { key: server.apiKey });
    assert.equal(answer.headers['content-length'], String(size));
    const received = createHash('sha256');
    for await (const chunk of answer) received.update(chunk as Buffer);
    assert.equal(received.digest('hex'), digest);
  });
  assert.ok(peak - before < 128 * mebibyte, `the server grew by ${Math.round((peak - before) / mebibyte)} MiB`);
  await sandbox().files.remove('/home/user/300m');
});

test('a slow reader holds up itself, not the server\'s memory', async () => {
  await output(sandbox(), 'head -c 300M /dev/zero > slow');
  const before = residentBytes(server.pid);
  const answer = await open(server.url, 'GET', raw('/home/user/slow'), { key: server.apiKey });
  answer.pause();
  const peak = await peakWhile(() => new Promise((resolve) => setTimeout(resolve, 2000)));
  assert.equal((await sandbox().commands.run('echo meanwhile')).stdout, 'meanwhile\n');
  answer.destroy();
  assert.ok(peak - before < 96 * mebibyte, `the server grew by ${Math.round((peak - before) / mebibyte)} MiB`);
});

test('an upload that says it is above 500 MiB is 413 before its body is read', async () => {
  const answer = await within(20_000, '413 for a large Content-Length', server.call('PUT', raw('/tmp/too-large'), { body: Readable.from([Buffer.alloc(1024)]), headers: { 'content-length': String(500 * mebibyte + 1) } }));
  assert.equal(answer.status, 413);
  assert.match(answer.json.message, /500 MiB/);
  assert.equal(await sandbox().files.exists('/tmp/too-large'), false);
});

test('a JSON body above 10 MiB is 413, one just below works', async () => {
  await sandbox().files.write('/tmp/nearly', 'x'.repeat(10 * mebibyte - 1000));
  assert.equal((await sandbox().files.getInfo('/tmp/nearly')).size, 10 * mebibyte - 1000);
  await assert.rejects(sandbox().files.write('/tmp/over', 'x'.repeat(10 * mebibyte + 1)), (error) => error instanceof NotEnoughSpaceError && /10 MiB/.test(error.message));
  assert.equal(await sandbox().files.exists('/tmp/over'), false);
});

test('an upload that breaks off changes nothing and leaves nothing', async () => {
  await sandbox().files.write('/home/user/kept/file', 'as it was');
  const socket = createConnection(server.port, '127.0.0.1');
  await once(socket, 'connect');
  socket.write(`PUT ${raw('/home/user/kept/file')} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${server.apiKey}\r\nContent-Length: 10000000\r\n\r\n`);
  socket.write(Buffer.alloc(5_000_000));
  await new Promise((resolve) => setTimeout(resolve, 500));
  socket.destroy();
  await eventually(async () => assert.equal(await output(sandbox(), 'ls -A kept'), 'file\n'));
  assert.equal(await sandbox().files.read('/home/user/kept/file'), 'as it was');
});
