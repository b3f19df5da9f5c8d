import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { serverWithInternet } from '../harness/internet.ts';
import { output } from '../harness/sandbox.ts';
import { prepare } from '../harness/server.ts';
import { eventually } from '../harness/wait.ts';

// What becomes of connections to the outside when a sandbox is paused, snapshotted and brought back from disk.

const { server, internet } = serverWithInternet({ PADDOCK_KEPT_MEMORY: '0' });

prepare(async () => {
  internet().name('good.example', internet().host(10));
  await internet().serve(7000, (socket) => {
    socket.write('welcome\n');
    socket.on('end', () => socket.end());
  });
});

/** Stays connected, connects again when it is cut, and tells over HTTP; everything in one event loop. */
const program = `
import net from 'node:net'; import http from 'node:http';
const seen = { welcomes: 0, cuts: [] };
function connect() {
  const socket = net.connect(7000, 'good.example');
  socket.on('data', () => seen.welcomes++).on('error', (e) => seen.cuts.push(e.code)).on('close', () => setTimeout(connect, 50));
}
connect();
http.createServer((_, response) => response.end(JSON.stringify(seen))).listen(8080);
`;

test('programs see their connections reset, connect again, and their event loop goes on, over pauses, snapshots and restores', async () => {
  const sandbox = await Sandbox.create({ template: 'node', timeout: 600, network: { allowOut: ['good.example'], denyOut: [], allowPublicTraffic: true } });
  await sandbox.files.write('/home/user/program.mjs', program);
  await sandbox.commands.run('node program.mjs', { background: true, timeout: 0 });
  const seen = async (): Promise<{ welcomes: number; cuts: string[] }> => JSON.parse((await server.call('GET', `/sandboxes/${sandbox.sandboxId}/ports/8080/`)).text);
  await eventually(async () => (await seen()).welcomes === 1);
  let welcomes = 1;
  for (let i = 0; i < 4; i++) {
    await sandbox.pause();
    await sandbox.resume();
    await eventually(async () => (await seen()).welcomes > welcomes, { withinMs: 5000 });
    ({ welcomes } = await seen());
  }
  const { snapshotId } = await sandbox.snapshot();
  await eventually(async () => (await seen()).welcomes > welcomes, { withinMs: 5000 });
  for (let i = 0; i < 3; i++) {
    await Sandbox.restore(sandbox.sandboxId, { snapshotId });
    const before = await eventually(seen);
    await eventually(async () => (await seen()).welcomes > before.welcomes || before.welcomes > welcomes, { withinMs: 5000 });
  }
  assert.ok((await seen()).cuts.every((code) => code === 'ECONNRESET' || code === 'ECONNREFUSED'), (await seen()).cuts.join(' '));
  assert.equal(await output(sandbox, 'echo alive'), 'alive\n');
  const { data } = (await server.call('GET', `/sandboxes/${sandbox.sandboxId}/network?limit=1000`)).json;
  const entries = data as { dst_port: number; verdict: string }[];
  assert.ok(entries.filter(({ dst_port: port }) => port === 7000).some(({ verdict }) => verdict === 'allowed'));
  await sandbox.deleteSnapshot(snapshotId);
  await sandbox.kill({ wait: true });
});
