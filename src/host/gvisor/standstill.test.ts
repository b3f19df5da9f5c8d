import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { type Server, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { RuntimeHandle } from '../runtime.ts';
import type { Runsc } from './command.ts';
import { Standstill } from './standstill.ts';

const root = mkdtempSync(join(tmpdir(), 'paddock-standstill-'));
const servers: Server[] = [];
after(() => {
  for (const server of servers) server.close();
  rmSync(root, { recursive: true });
});

interface Guest {
  readonly handle: RuntimeHandle;
  /** What its kernel was asked, or runsc was told, in order. */
  readonly calls: string[];
  readonly standstill: Standstill;
}

/** A kernel as strict as the real one, behind its socket or, without `socket`, only to be reached through the command. */
async function guest(name: string, socket: boolean, answer: (method: string) => string = () => '{"success":true,"err":"","result":{}}'): Promise<Guest> {
  const container = `g${name}`;
  const path = join(root, `${name}.sock`);
  const calls: string[] = [];
  const books = (status: string): void => writeFileSync(join(root, `${container}_sandbox:${container}.state`), JSON.stringify({ status, sandbox: { controlSocketPath: path } }));
  books('running');
  if (socket) {
    const server = createServer((connection) =>
      connection.on('data', (data) => {
        const { method } = JSON.parse(data.toString()) as { method: string };
        calls.push(method);
        connection.write(answer(method));
      }),
    );
    servers.push(server);
    await new Promise<void>((resolve) => void server.listen(path, resolve));
  }
  const runsc = {
    pause: async () => void (calls.push('runsc pause'), books('paused')),
    resume: async () => void (calls.push('runsc resume'), books('running')),
  } as unknown as Runsc;
  return { handle: { container, build: 'b' } as RuntimeHandle, calls, standstill: new Standstill(root, async () => runsc) };
}

test('a pause is written down until its resume', async () => {
  const { handle, calls, standstill } = await guest('a', true);
  assert.equal(standstill.state(handle.container), 'running');
  await standstill.pause(handle);
  assert.equal(standstill.state(handle.container), 'paused');
  assert.equal(new Standstill(root, async () => assert.fail()).state(handle.container), 'paused', 'for the next server too');
  await standstill.resume(handle);
  assert.equal(standstill.state(handle.container), 'running');
  assert.deepEqual(calls, ['containerManager.Pause', 'containerManager.Resume']);
});

test('the kernel is never asked once too often', async () => {
  const { handle, calls, standstill } = await guest('b', true);
  await assert.rejects(standstill.resume(handle), /not paused/);
  await standstill.pause(handle);
  await assert.rejects(standstill.pause(handle), /paused already/);
  await standstill.resume(handle);
  await assert.rejects(standstill.resume(handle), /not paused/);
  assert.deepEqual(calls, ['containerManager.Pause', 'containerManager.Resume']);
});

test('a kernel that does not know the calls is paused and resumed by the command', async () => {
  for (const each of [await guest('c', false), await guest('d', true, () => '{"success":false,"err":"unknown method","result":null}')]) {
    const { handle, calls, standstill } = each;
    await standstill.pause(handle);
    assert.equal(standstill.state(handle.container), 'paused');
    await standstill.resume(handle);
    assert.equal(standstill.state(handle.container), 'running');
    assert.deepEqual(calls.filter((call) => call.startsWith('runsc')), ['runsc pause', 'runsc resume']);
  }
});

test('a pause that is refused leaves a running guest', async () => {
  const { handle, standstill } = await guest('e', true, () => '{"success":false,"err":"no","result":null}');
  await assert.rejects(standstill.pause(handle), /Pause failed: no/);
  assert.equal(standstill.state(handle.container), 'running');
});

test('a resume that fails leaves the state unknown, not running', async () => {
  const { handle, standstill } = await guest('f', true, (method) => (method.endsWith('Pause') ? '{"success":true}' : '{"success":false,"err":"no"}'));
  await standstill.pause(handle);
  await assert.rejects(standstill.resume(handle), /Resume failed: no/);
  assert.equal(standstill.state(handle.container), 'unknown');
  standstill.forget(handle.container);
  assert.equal(standstill.state(handle.container), 'running');
  assert.deepEqual(readdirSync(root).filter((file) => file.endsWith('.paused')), []);
});
