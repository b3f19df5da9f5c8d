import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { type Server, type Socket, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlTimeout, ControlUnavailable, callKernel } from './control.ts';

const dir = mkdtempSync(join(tmpdir(), 'paddock-control-'));
const servers: Server[] = [];
after(() => {
  for (const server of servers) server.close();
  rmSync(dir, { recursive: true });
});

/** A socket where every call is handled like this; resolves to its path. */
async function kernel(handle: (request: string, socket: Socket) => void): Promise<string> {
  const path = join(dir, `${servers.length}.sock`);
  const server = createServer((socket) => socket.on('error', () => {}).on('data', (data) => handle(data.toString(), socket)));
  servers.push(server);
  await new Promise<void>((resolve) => void server.listen(path, resolve));
  return path;
}

const call = { method: 'containerManager.Pause', deadlineMs: 2000 };

test('a call is one object with method and argument, and succeeds when the answer says so', async () => {
  let asked = '';
  const path = await kernel((request, socket) => {
    asked = request;
    socket.write('{"success":true,');
    setTimeout(() => socket.write('"err":"","result":{}}'), 20); // in two pieces
  });
  await callKernel(path, call);
  assert.deepEqual(JSON.parse(asked), { method: 'containerManager.Pause', arg: null });
});

test('a refusal is an error with its reason', async () => {
  const path = await kernel((_, socket) => socket.write('{"success":false,"err":"container not running","result":null}'));
  await assert.rejects(callKernel(path, call), /Pause failed: container not running/);
});

test('who does not know the call has not done anything', async () => {
  const unknown = await kernel((_, socket) => socket.write('{"success":false,"err":"unknown method","result":null}'));
  await assert.rejects(callKernel(unknown, call), ControlUnavailable);
  const odd = await kernel((_, socket) => socket.write('{"greeting":"hello"}'));
  await assert.rejects(callKernel(odd, call), ControlUnavailable);
  await assert.rejects(callKernel(join(dir, 'nobody.sock'), call), ControlUnavailable);
});

test('babble without end is not read without end', async () => {
  const path = await kernel((_, socket) => socket.write('{"success":'.padEnd(200_000)));
  await assert.rejects(callKernel(path, call), ControlUnavailable);
});

test('a kernel that dies during a call may have done it: that is not the same as nobody there', async () => {
  const path = await kernel((_, socket) => socket.destroy());
  await assert.rejects(callKernel(path, call), (reason: Error) => !(reason instanceof ControlUnavailable) && /ended during|broke off/.test(reason.message));
});

test('a late success is heard of', async () => {
  const path = await kernel((_, socket) => setTimeout(() => socket.write('{"success":true,"err":"","result":{}}'), 150));
  let late = 0;
  await assert.rejects(callKernel(path, { ...call, deadlineMs: 50, onLate: () => late++ }), ControlTimeout);
  assert.equal(late, 0);
  await sleep(250);
  assert.equal(late, 1);
});
