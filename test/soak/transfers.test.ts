import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { residentBytes } from '../harness/machine.ts';
import { output, sandboxOfThisFile } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { short } from './pace.ts';

const mebibyte = 1024 * 1024;
const server = serverOfThisFile();
const sandbox = sandboxOfThisFile();
const raw = (path: string): string => `/sandboxes/${sandbox().sandboxId}/files/raw?path=${path}`;

function blocks(count: number, extra = 0): Readable {
  const block = Buffer.alloc(mebibyte, 1);
  return Readable.from((function* () {
    for (let i = 0; i < count; i++) yield block;
    if (extra > 0) yield block.subarray(0, extra);
  })());
}

test('exactly 500 MiB are taken, without a Content-Length', { timeout: 300_000 }, async () => {
  const answer = await server.call('PUT', raw('/home/user/just'), { body: blocks(500), timeoutMs: 240_000 });
  assert.deepEqual([answer.status, answer.json], [200, { path: '/home/user/just', size: 500 * mebibyte }]);
  await output(sandbox(), 'rm just');
});

test('a byte more is 413 with the limit, and leaves nothing behind', { timeout: 300_000 }, async () => {
  await sandbox().files.write('/home/user/before', 'as it was');
  const answer = await server.call('PUT', raw('/home/user/before'), { body: blocks(500, 1), timeoutMs: 240_000 });
  assert.equal(answer.status, 413);
  assert.match(answer.json.message, /500 MiB|524288000/);
  assert.equal(await sandbox().files.read('/home/user/before'), 'as it was');
  const used = Number(await output(sandbox(), 'du -sm /home/user | cut -f1'));
  assert.ok(used < 10, `${used} MiB are left of the refused upload`);
});

test('the server has not grown by it', async () => {
  assert.ok(residentBytes(server.pid) < 300 * mebibyte, `${Math.round(residentBytes(server.pid) / mebibyte)} MiB`);
});

test('a stream that is silent for longer than the clients wait survives by its keep-alives', { timeout: 600_000, skip: short ? 'takes six minutes' : false }, async () => {
  const result = await sandbox().commands.runStream('sleep 330; echo still here', { timeout: 0 });
  assert.deepEqual(result, { stdout: 'still here\n', stderr: '', exitCode: 0 });
});
