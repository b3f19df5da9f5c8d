import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openCgroup } from '../cgroup.ts';
import { type Instance, openInstance } from '../instance.ts';
import { silentLog } from '../log.ts';
import { type Slot, Slots } from '../slots.ts';
import { runTool } from '../tool.ts';
import { linkAddresses } from './addresses.ts';
import { ensureGateway, removeGateway } from './gateway.ts';
import { listNetns, runInNetns } from './netns.ts';

// The attacker here is root in a slot's namespace with the host's own kernel: more than any guest ever has.

const never = new AbortController().signal;
let dir: string;
let instance: Instance;
let slots: Slots;
let attacker: Slot;
let neighbour: Slot;

before(async () => {
  dir = mkdtempSync(join(tmpdir(), 'paddock-gateway-'));
  instance = await openInstance(dir, undefined);
  await ensureGateway(instance);
  slots = new Slots(instance, { ahead: 0, diskMb: 64, log: silentLog });
  attacker = await slots.claim(64, never);
  neighbour = await slots.claim(64, never);
});

after(async () => {
  await slots.release(attacker);
  await slots.release(neighbour);
  await slots.close();
  await removeGateway(instance);
  await openCgroup(instance.cgroup).remove();
  assert.deepEqual([...listNetns()].filter((name) => name.includes(instance.id)), []);
  rmSync(dir, { recursive: true });
});

/** What connect() says inside a namespace, and how long it took to say it. */
async function connectFrom(slot: Slot, address: string, port: number): Promise<{ outcome: string; ms: number }> {
  const script = `
    const started = performance.now();
    const done = (outcome) => { console.log(JSON.stringify({ outcome, ms: performance.now() - started })); process.exit(); };
    require('net').connect(${port}, '${address}').on('connect', () => done('connected')).on('error', (e) => done(e.code));
    setTimeout(() => done('hangs'), 2000);`;
  return JSON.parse(await runInNetns(slot.netns, process.execPath, ['-e', script])) as { outcome: string; ms: number };
}

async function assertClosedIn(): Promise<void> {
  const { near: hostAddress, far: gatewayAddress } = linkAddresses(instance.subnet, 0);
  const server = createServer().listen(0, '0.0.0.0');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  try {
    for (const address of ['192.0.2.1', '8.8.8.8', '169.254.169.254', '10.0.0.1', '127.0.0.1', '100.64.0.1', gatewayAddress, neighbour.address]) {
      const { outcome, ms } = await connectFrom(attacker, address, port);
      assert.equal(outcome, 'ECONNREFUSED', `${address} from inside`);
      assert.ok(ms < 100, `${address} was refused after ${ms} ms`);
    }
    const { outcome } = await connectFrom(attacker, hostAddress, port);
    assert.ok(['ECONNREFUSED', 'hangs'].includes(outcome), `the host's end of the link: ${outcome}`);
  } finally {
    server.close();
  }
}

test('a guest reaches nothing: not the internet, metadata, the gateway, a neighbour or the host', assertClosedIn);

test('ten connects in a row to a literal address are each refused at once', async () => {
  for (let i = 0; i < 10; i++) {
    const { outcome, ms } = await connectFrom(attacker, '203.0.113.7', 443);
    assert.equal(outcome, 'ECONNREFUSED');
    assert.ok(ms < 100, `${ms} ms`);
  }
});

test('the host reaches a server in a guest, and the guest answers on that connection', async () => {
  const server = spawn('ip', ['netns', 'exec', attacker.netns, process.execPath, '-e', `require('net').createServer((s) => s.end('hello')).listen(49983, () => console.log('up'))`], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    await once(server.stdout, 'data');
    const script = `require('net').connect(49983, '${attacker.address}').on('data', (d) => console.log(String(d))).on('error', (e) => console.log(e.code))`;
    assert.equal((await runTool(process.execPath, ['-e', script])).trim(), 'hello');
    // The same port from a neighbour.
    assert.equal((await connectFrom(neighbour, attacker.address, 49983)).outcome, 'ECONNREFUSED');
  } finally {
    server.kill('SIGKILL');
    await once(server, 'exit');
  }
});

test('a spoofed source address is dropped', async () => {
  await runTool('ip', ['-n', attacker.netns, 'addr', 'add', `${neighbour.address}/32`, 'dev', 'eth0']);
  try {
    const listener = spawn('ip', ['netns', 'exec', instance.gatewayNetns, process.execPath, '-e', `
      const s = require('dgram').createSocket('udp4').on('message', (m) => { console.log(String(m)); });
      s.bind(5353, () => console.log('up')); setTimeout(() => process.exit(), 1000);`], { stdio: ['ignore', 'pipe', 'inherit'] });
    const heard: string[] = [];
    listener.stdout.on('data', (data: Buffer) => heard.push(data.toString()));
    await once(listener.stdout, 'data');
    const gateway = linkAddresses(instance.subnet, attacker.number).near;
    await runInNetns(attacker.netns, process.execPath, ['-e', `
      const s = require('dgram').createSocket('udp4');
      s.bind(0, '${neighbour.address}', () => s.send('forged', 5353, '${gateway}', () => s.close()));`]);
    await once(listener, 'exit');
    assert.deepEqual(heard, ['up\n']);
    const dropped = await runInNetns(instance.gatewayNetns, 'sh', ['-c', 'grep -h . /proc/net/snmp | head -2 >/dev/null; nft list ruleset | grep -c "policy drop"']);
    assert.equal(dropped.trim(), '3');
  } finally {
    await runTool('ip', ['-n', attacker.netns, 'addr', 'delete', `${neighbour.address}/32`, 'dev', 'eth0']);
  }
});

test('IPv6 leads nowhere', async () => {
  const addresses = await runTool('ip', ['-n', attacker.netns, '-6', '-json', 'addr', 'show', 'dev', 'eth0']);
  assert.ok(!addresses.includes('fe80'), addresses);
  assert.ok(!(await runTool('ip', ['-n', instance.gatewayNetns, '-6', 'addr'])).includes('inet6'), 'the gateway has no IPv6 address at all');
});

test('rules flushed by another program: routing alone keeps guests in', async () => {
  await runInNetns(instance.gatewayNetns, 'nft', ['flush', 'ruleset']);
  try {
    const { far: gatewayAddress } = linkAddresses(instance.subnet, 0);
    for (const address of ['192.0.2.1', '169.254.169.254', gatewayAddress, neighbour.address]) {
      assert.equal((await connectFrom(attacker, address, 49983)).outcome, 'ECONNREFUSED', address);
    }
    // The one address that routing leaves open is closed by the host's own rule.
    assert.equal((await connectFrom(attacker, linkAddresses(instance.subnet, 0).near, 22)).outcome, 'hangs');
  } finally {
    await ensureGateway(instance);
    for (const slot of [attacker, neighbour]) {
      await runInNetns(instance.gatewayNetns, 'nft', ['add', 'element', 'inet', 'paddock', 'slots', `{ "s${slot.number}" . ${slot.address} }`]);
    }
  }
  await assertClosedIn();
});

test('setting the gateway up again changes nothing for those who live', async () => {
  const before = await runInNetns(instance.gatewayNetns, 'nft', ['list', 'ruleset']);
  await ensureGateway(instance);
  assert.equal(await runInNetns(instance.gatewayNetns, 'nft', ['list', 'ruleset']), before);
  await assertClosedIn();
});

test('a slot given back is as new: other disk, same addresses', async () => {
  const slot = await slots.claim(64, never);
  await runTool('sh', ['-c', `echo secret > ${slot.disk.mount}/left`]);
  await runTool('ip', ['-n', slot.netns, 'addr', 'flush', 'dev', 'eth0']); // what runsc does to it
  await slots.release(slot);
  const again = await slots.claim(64, never);
  assert.equal(again.number, slot.number);
  assert.equal((await runTool('sh', ['-c', `ls ${again.disk.mount}`])).trim(), 'lost+found');
  assert.match(await runTool('ip', ['-n', again.netns, '-4', 'addr', 'show', 'eth0']), new RegExp(again.address));
  await slots.release(again);
});
