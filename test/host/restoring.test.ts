import assert from 'node:assert/strict';
import { closeSync, copyFileSync, mkdirSync, openSync, readFileSync, renameSync, symlinkSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import type { CheckpointRef } from '../../src/core/host.ts';
import type { NetworkPolicy } from '../../src/core/network/rules.ts';
import { Internet } from '../../src/egress/testing/internet.ts';
import type { Manifest } from '../../src/host/manifest.ts';
import { isAlive, tracesOf } from '../harness/machine.ts';
import { artefactsDir } from '../harness/server.ts';
import { eventually, sleep } from '../harness/wait.ts';
import { fails, Laboratory, saversOf, type Subject } from './laboratory.ts';

// What comes back from a checkpoint, and that what cannot come back leaves nothing behind.

const laboratory = new Laboratory();
const internetId = `${process.pid.toString(16).padStart(4, '0').slice(-4)}4e57`;
let internet: Internet;

before(async () => {
  internet = await Internet.open(internetId);
  await laboratory.open();
});

after(async () => {
  const left = await laboratory.close();
  await internet.close();
  assert.deepEqual([left, laboratory.complaints], [[], []]);
});

afterEach(() => laboratory.destroyAll());

const counting = 'echo $$ > /tmp/counter; i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.02; done';

async function counter(): Promise<Subject> {
  const subject = await laboratory.create();
  await laboratory.start(subject, counting);
  await laboratory.run(subject, 'while [ ! -s /tmp/count ]; do sleep 0.02; done');
  return subject;
}

async function count(subject: Subject): Promise<number> {
  return Number(await eventually(() => laboratory.run(subject, 'cat /tmp/count').then((text) => (text === '' ? false : text))));
}

function manifestFile(ref: CheckpointRef): string {
  return join(laboratory.checkpointsDir, ref.id, 'manifest.json');
}

async function hashed(ref: CheckpointRef): Promise<Manifest> {
  return eventually(() => {
    const manifest = JSON.parse(readFileSync(manifestFile(ref), 'utf8')) as Manifest;
    return manifest.files.every((file) => file.sha256 !== null) ? manifest : false;
  });
}

/** Nothing of the guest that could not be restored, and everything of the others. */
async function assertNothingNew(guests: readonly string[]): Promise<void> {
  assert.deepEqual(new Set(laboratory.guests), new Set(guests));
}

test('a paused sandbox goes on from memory with what it had', async () => {
  const subject = await counter();
  const before = await count(subject);
  const ref = await laboratory.pause(subject);
  assert.throws(() => laboratory.host.guest(subject.id), fails('gone', /ended/));
  assert.ok(isAlive(subject.ref.pid), 'kept in memory');
  const at = await cpuOf(subject.ref.pid);
  await sleep(500);
  assert.equal(await cpuOf(subject.ref.pid), at, 'a kept guest costs no CPU');
  const laps: string[] = [];
  const woken = await laboratory.restore(ref, subject, { as: subject, lap: (stage) => laps.push(stage) });
  assert.deepEqual(laps, ['kept', 'identity']);
  assert.equal(woken.ref.pid, subject.ref.pid);
  const later = await count(woken);
  assert.ok(later >= before && later < before + 100, `${before} → ${later}`);
  await eventually(async () => assert.ok((await count(woken)) > later));
  await laboratory.host.removeCheckpoint(ref.id);
  assert.equal(await laboratory.run(woken, 'echo alive'), 'alive', 'a guest that was taken is not its checkpoint\'s any more');
  await laboratory.host.destroy(subject.id);
});

test('a paused sandbox goes on from disk with its processes, files and memory', async () => {
  const subject = await counter();
  await laboratory.run(subject, 'echo kept > /home/user/file; echo shared > /dev/shm/file');
  const [machine, pid, before] = [await laboratory.run(subject, 'cat /etc/machine-id'), await laboratory.run(subject, 'cat /tmp/counter'), await count(subject)];
  const ref = await laboratory.save(subject, true);
  await laboratory.host.destroy(subject.id);
  await sleep(1000);
  const laps: string[] = [];
  const again = await laboratory.restore(ref, subject, { as: subject, lap: (stage) => laps.push(stage) });
  assert.deepEqual(laps, ['slot', 'egress', 'restore', 'agent', 'identity']);
  const later = await count(again);
  assert.ok(later >= before && later < before + 100, `${before} → ${later}`);
  assert.equal(await laboratory.run(again, 'cat /etc/machine-id'), machine);
  assert.equal(await laboratory.run(again, 'cat /tmp/counter; kill -0 $(cat /tmp/counter) && echo runs'), `${pid}\nruns`);
  assert.equal(await laboratory.run(again, 'cat /home/user/file /dev/shm/file'), 'kept\nshared');
  assert.equal(await laboratory.run(again, 'id -un', 'user'), 'user');
  assert.equal(again.ref.agentProtocol, ref.agentProtocol);
  await laboratory.host.destroy(subject.id);
  await laboratory.host.removeCheckpoint(ref.id);
});

test('copies of one checkpoint, made at once, are machines of their own', async () => {
  const subject = await counter();
  const ref = await laboratory.save(subject, false);
  const copies = await Promise.all([0, 1, 2].map(() => laboratory.restore(ref, subject)));
  const all = [subject, ...copies];
  assert.equal(new Set(all.map((each) => each.ref.address)).size, 4);
  for (const file of ['/etc/machine-id', '/proc/sys/kernel/hostname']) {
    const values = await Promise.all(all.map((each) => laboratory.run(each, `cat ${file}`)));
    assert.equal(new Set(values).size, 4, `${file}: ${values.join(' ')}`);
  }
  const random = await Promise.all(all.map((each) => laboratory.run(each, 'head -c 16 /dev/urandom | od -An -tx1')));
  assert.equal(new Set(random).size, 4);
  for (const each of all) {
    const first = await count(each);
    await eventually(async () => assert.ok((await count(each)) > first));
  }
  await laboratory.run(copies[0]!, 'echo mine > /home/user/mine');
  assert.equal(await laboratory.run(copies[1]!, 'ls /home/user/mine 2>&1 | wc -l; cat /home/user/mine 2>/dev/null'), '1');
  await Promise.all(all.map(({ id }) => laboratory.host.destroy(id)));
  await laboratory.host.removeCheckpoint(ref.id);
});

test('the rules of the restored sandbox are in force from its first packet', async () => {
  await internet.serve(7000, (socket) => socket.end('reached'));
  const subject = await laboratory.create();
  // Tries all the time; the first attempt after the restore comes at once.
  await laboratory.start(subject, `while :; do (timeout 2 cat < /dev/tcp/${internet.host(10)}/7000 > /tmp/got) 2> /dev/null; [ -s /tmp/got ] && echo reached >> /tmp/log; : > /tmp/got; sleep 0.01; done`);
  await laboratory.run(subject, 'while [ ! -s /tmp/log ]; do sleep 0.02; done');
  const ref = await laboratory.save(subject, true);
  await laboratory.host.destroy(subject.id);
  const closed: NetworkPolicy = { allow: [], deny: [{ kind: 'all', text: '0.0.0.0/0' }] };
  const again = await laboratory.restore(ref, subject, { as: subject, network: closed });
  // Before the pause an attempt may have come back whose success was not written down yet.
  const first = Number(await laboratory.run(again, 'wc -l < /tmp/log'));
  await sleep(500);
  assert.ok(Number(await laboratory.run(again, 'wc -l < /tmp/log')) <= first + 1);
  await laboratory.host.setNetwork(again.id, { allow: [], deny: [] });
  await eventually(async () => assert.ok(Number(await laboratory.run(again, 'wc -l < /tmp/log')) > first + 3));
  await laboratory.host.destroy(again.id);
  await laboratory.host.removeCheckpoint(ref.id);
});

test('restoring in place ends the guest that ran, after the new one is ready', async () => {
  const subject = await counter();
  const ref = await laboratory.save(subject, false);
  await laboratory.run(subject, 'touch /home/user/later');
  const ended = laboratory.host.guest(subject.id);
  const again = await laboratory.restore(ref, subject, { as: subject });
  assert.notEqual(again.ref.container, subject.ref.container);
  assert.equal(await laboratory.run(again, 'ls /home/user'), '');
  await assert.rejects(ended.processes(AbortSignal.timeout(1000)), fails('conflict', /restored from a snapshot/));
  assert.deepEqual(laboratory.guests, [again.ref.container]);
  await laboratory.host.destroy(subject.id);
  assert.deepEqual(laboratory.guests, []);
  await laboratory.host.removeCheckpoint(ref.id);
});

test('a kept guest goes with its sandbox, and with its checkpoint', async () => {
  for (const remove of [(subject: Subject) => laboratory.host.destroy(subject.id), (_: Subject, ref: CheckpointRef) => laboratory.host.removeCheckpoint(ref.id)]) {
    const subject = await laboratory.create();
    const ref = await laboratory.pause(subject);
    assert.deepEqual(laboratory.guests, [subject.ref.container]);
    await remove(subject, ref);
    assert.deepEqual(laboratory.guests, []);
    await laboratory.host.removeCheckpoint(ref.id);
  }
});

test('a kept guest that dies, or is not wanted, is replaced by its checkpoint', async () => {
  const subject = await counter();
  const ref = await laboratory.pause(subject);
  const copy = await laboratory.restore(ref, subject); // somebody new never gets the kept one
  assert.ok(isAlive(subject.ref.pid));
  process.kill(subject.ref.pid, 'SIGKILL'); // waits in the freezer, under cgroup v1
  const again = await laboratory.restore(ref, subject, { as: subject });
  assert.ok((await count(again)) > 0);
  await Promise.all([copy, again].map(({ id }) => laboratory.host.destroy(id)));
  await eventually(() => laboratory.guests.length === 0);
  laboratory.complaints.splice(0); // that the kept one could not be woken
  await laboratory.host.removeCheckpoint(ref.id);
});

test('a damaged checkpoint is refused, by size at once and by content before anybody can use it', async () => {
  const subject = await counter();
  const ref = await laboratory.save(subject, true);
  await laboratory.host.destroy(subject.id);
  const { files } = await hashed(ref);
  const pages = join(laboratory.checkpointsDir, ref.id, 'pages.img');
  copyFileSync(pages, `${pages}.good`);
  const { size } = files.find((file) => file.name === 'pages.img')!;

  truncateSync(pages, size - 4096);
  const laps: string[] = [];
  await assert.rejects(laboratory.restore(ref, subject, { as: subject, lap: (stage) => laps.push(stage) }), fails('unprocessable', /damaged: pages.img has \d+ bytes instead of/));
  assert.deepEqual(laps, [], 'nothing was begun');

  copyFileSync(`${pages}.good`, pages);
  const file = openSync(pages, 'r+');
  writeSync(file, Buffer.alloc(4096, 0x90), 0, 4096, Math.floor(size / 2));
  closeSync(file);
  await assert.rejects(fresh((other) => other.restore(ref, subject, { as: subject })), fails('unprocessable', /damaged: the content of pages.img has changed/));
  await assertNothingNew([]);

  for (const name of ['checkpoint.img', 'pages_meta.img']) {
    copyFileSync(`${pages}.good`, pages);
    const path = join(laboratory.checkpointsDir, ref.id, name);
    const content = readFileSync(path);
    writeFileSync(path, Buffer.alloc(content.length, 0xff));
    await assert.rejects(fresh((other) => other.restore(ref, subject, { as: subject })), fails('unprocessable', /damaged: the content of/));
    writeFileSync(path, content);
  }
  const again = await fresh((other) => other.restore(ref, subject, { as: subject }).then((restored) => other.run(restored, 'echo whole')));
  assert.equal(again, 'whole');
  await laboratory.host.removeCheckpoint(ref.id);
  await assert.rejects(laboratory.restore(ref, subject, { as: subject }), fails('not_found', /no longer on this server/));
});

/** The same checkpoints on a host that has not just written or read them. What it leaves on the machine fails the test. */
async function fresh<T>(use: (other: Laboratory) => Promise<T>): Promise<T> {
  const other = new Laboratory();
  symlinkSync(laboratory.checkpointsDir, other.checkpointsDir);
  try {
    await other.open();
    const result = await use(other);
    return result;
  } finally {
    assert.deepEqual(await other.close(), []);
  }
}

test('what this machine lacks is named, and nothing is started', async () => {
  const subject = await laboratory.create();
  const ref = await laboratory.save(subject, true);
  await laboratory.host.destroy(subject.id);
  const manifest = await hashed(ref);
  const forge = (patch: Partial<CheckpointRef>): void => writeFileSync(manifestFile(ref), JSON.stringify({ ...manifest, ref: { ...ref, ...patch } }));
  const attempts: [Partial<CheckpointRef>, RegExp][] = [
    [{ build: 'b'.repeat(64) }, /no longer has the runsc build b{64}/],
    [{ agent: 'a'.repeat(64) }, /no longer has the agent a{64}/],
    [{ template: '0'.repeat(32) }, /no longer has the template 0{32}/],
    [{ agentProtocol: 0 }, /version 0 of its agent/],
    [{ runtime: 'microvm' }, /saved by the runtime "microvm"/],
  ];
  for (const [patch, text] of attempts) {
    forge(patch);
    await assert.rejects(laboratory.restore(ref, subject, { as: subject }), fails('unprocessable', text));
    await assertNothingNew([]);
  }
  forge({});
  const again = await laboratory.restore(ref, subject, { as: subject });
  assert.equal(await laboratory.run(again, 'echo alive'), 'alive');
  await laboratory.host.destroy(subject.id);
  await laboratory.host.removeCheckpoint(ref.id);
});

test('runtime, agent and template that are no longer current still restore what was saved with them', async () => {
  const artefacts = join(laboratory.dataDir, 'artefacts');
  for (const kind of ['runsc', 'agent', 'unpacker', 'templates']) {
    mkdirSync(join(artefacts, kind), { recursive: true });
  }
  const subject = await counter();
  const ref = await laboratory.save(subject, true);
  await laboratory.host.destroy(subject.id);
  // A machine where set-up has moved on: what was current is there by its digest only.
  symlinkSync(join(artefactsDir, 'runsc', ref.build), join(artefacts, 'runsc', ref.build));
  symlinkSync(join(artefactsDir, 'agent', ref.agent), join(artefacts, 'agent', ref.agent));
  mkdirSync(join(artefacts, 'templates', 'base'));
  symlinkSync(join(artefactsDir, 'templates', 'base', ref.template), join(artefacts, 'templates', 'base', ref.template));
  writeFileSync(join(artefacts, 'runsc', 'current.json'), JSON.stringify({ path: join(artefactsDir, 'runsc', ref.build, 'runsc'), sha256: 'f'.repeat(64) }));
  for (const kind of ['agent', 'unpacker']) writeFileSync(join(artefacts, kind, 'current.json'), JSON.stringify({ path: '/nowhere', sha: 'e'.repeat(64) }));
  const other = new Laboratory({ artefactsDir: artefacts });
  renameSync(join(laboratory.checkpointsDir, ref.id), join(mkdirp(other.checkpointsDir), ref.id));
  try {
    await other.open();
    const again = await other.restore(ref, subject, { as: subject });
    assert.ok(Number(await other.run(again, 'cat /tmp/count || true')) >= 0);
    assert.equal(again.ref.build, ref.build);
    const next = await other.save(again, false); // and goes on being what it is
    assert.deepEqual([next.build, next.agent, next.template], [ref.build, ref.agent, ref.template]);
  } finally {
    assert.deepEqual(await other.close(), []);
  }
});

function mkdirp(dir: string): string {
  mkdirSync(dir, { recursive: true });
  return dir;
}

test('a restore that is given up leaves nothing', async () => {
  const subject = await laboratory.create();
  await laboratory.fillMemory(subject, 200);
  const ref = await laboratory.save(subject, true);
  await laboratory.host.destroy(subject.id);
  const traces = await tracesOf(laboratory.dataDir);
  for (const waitMs of [0, 40, 90, 140]) {
    const leaving = new AbortController();
    const restoring = laboratory.restore(ref, subject, { as: subject, lap: (stage) => stage === 'egress' && setTimeout(() => leaving.abort(new Error('left')), waitMs) }, leaving.signal);
    await assert.rejects(restoring, /left/);
    await assertNothingNew([]);
  }
  await eventually(async () => assert.deepEqual(sorted(await tracesOf(laboratory.dataDir)), sorted(traces)));
  assert.deepEqual(saversOf(subject), []);
  const again = await laboratory.restore(ref, subject, { as: subject });
  assert.equal(await laboratory.run(again, 'echo alive'), 'alive');
  await laboratory.host.destroy(subject.id);
  await laboratory.host.removeCheckpoint(ref.id);
});

/** Slots that stand ready differ in number only. */
function sorted(traces: readonly string[]): string[] {
  return traces.filter((trace) => !/slot|loop device|mount|network namespace/.test(trace)).sort();
}

test('a guest that holds nearly all it may is restored', async () => {
  const subject = await laboratory.create();
  await laboratory.fillMemory(subject, 440); // of 512
  const ref = await laboratory.save(subject, true);
  await laboratory.host.destroy(subject.id);
  const again = await laboratory.restore(ref, subject, { as: subject });
  const [total] = /MemTotal:\s+\d+/.exec(await laboratory.run(again, 'cat /proc/meminfo')) ?? [];
  assert.equal(total?.replace(/\s+/, ' '), `MemTotal: ${512 * 1024}`);
  assert.equal(await laboratory.run(again, 'pgrep -c perl'), '1');
  await laboratory.host.destroy(subject.id);
  await laboratory.host.removeCheckpoint(ref.id);
});

test('more memory than the machine has is refused with a sentence', async () => {
  await laboratory.host.assertRoom(0);
  await assert.rejects(laboratory.host.assertRoom(2 ** 46), fails('no_capacity', /MiB of memory left, and 67108864 MiB are needed/));
});

async function cpuOf(pid: number): Promise<number> {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ');
  return Number(fields[11]) + Number(fields[12]);
}
