import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { closeSync, openSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { Internet } from '../../src/egress/testing/internet.ts';
import { runTool } from '../../src/host/tool.ts';
import { eventually, sleep } from '../harness/wait.ts';
import { fails, Laboratory, paused, saversOf, type Subject } from './laboratory.ts';

// What a save does to the guest and to the disk, and that whatever goes wrong leaves the guest running and the disk clean.

const laboratory = new Laboratory();
const internetId = `${process.pid.toString(16).padStart(4, '0').slice(-4)}5a7e`;
let internet: Internet;

before(async () => {
  internet = await Internet.open(internetId);
  await laboratory.open();
});

after(async () => {
  const left = await laboratory.close();
  await internet.close();
  assert.deepEqual(left, []);
});

afterEach(() => laboratory.destroyAll());

const counting = 'i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.02; done';

async function count(subject: Subject): Promise<number> {
  return Number(await laboratory.run(subject, 'cat /tmp/count'));
}

async function assertCounts(subject: Subject): Promise<void> {
  const first = await eventually(() => count(subject));
  await eventually(async () => assert.ok((await count(subject)) > first));
}

test('a guest that is not held goes on, and says how long it stood still', async () => {
  const subject = await laboratory.create();
  await laboratory.start(subject, counting);
  await laboratory.run(subject, 'while [ ! -s /tmp/count ]; do sleep 0.02; done');
  const laps: string[] = [];
  const ref = await laboratory.save(subject, false, randomUUID(), (stage) => laps.push(stage));
  assert.deepEqual(laps, ['hold', 'save', 'durable']);
  assert.ok(ref.pausedForMs > 0 && ref.pausedForMs < 5000, `${ref.pausedForMs} ms`);
  assert.ok(ref.bytes > 1_000_000 && ref.memoryBytes > 1_000_000, JSON.stringify(ref));
  assert.equal(ref.build, subject.ref.build);
  await assertCounts(subject);
  assert.deepEqual(await laboratory.host.checkpoints(), [ref]);
  await laboratory.host.removeCheckpoint(ref.id);
  assert.deepEqual(laboratory.checkpointNames, []);
  await laboratory.host.destroy(subject.id);
});

test('a held guest stands still until it may go on, and can be saved again', async () => {
  const subject = await laboratory.create();
  await laboratory.start(subject, counting);
  await laboratory.run(subject, 'while [ ! -s /tmp/count ]; do sleep 0.02; done');
  const held = await laboratory.save(subject, true);
  await assert.rejects(laboratory.save(subject, true), fails('conflict', /being paused/));
  const waiting = count(subject);
  assert.equal(await Promise.race([waiting, sleep(500, 'nothing')]), 'nothing');
  await laboratory.host.proceed(subject.id);
  assert.ok((await waiting) > 0, 'what was asked meanwhile is answered afterwards');
  await laboratory.host.proceed(subject.id); // once is enough
  await assertCounts(subject);
  for (let i = 0; i < 3; i++) {
    const again = await laboratory.save(subject, i % 2 === 0);
    await laboratory.host.proceed(subject.id);
    await laboratory.host.removeCheckpoint(again.id);
  }
  await assertCounts(subject);
  await laboratory.host.removeCheckpoint(held.id);
  await laboratory.host.destroy(subject.id);
});

test('saves of one sandbox come one after the other', async () => {
  const subject = await laboratory.create();
  const refs = await Promise.all([laboratory.save(subject, false), laboratory.save(subject, false), laboratory.save(subject, false)]);
  assert.equal(new Set(refs.map((ref) => ref.id)).size, 3);
  assert.equal(await laboratory.run(subject, 'echo alive'), 'alive');
  for (const ref of refs) await laboratory.host.removeCheckpoint(ref.id);
  await laboratory.host.destroy(subject.id);
});

test('a guest with connections to the outside is saved; they are cut, and new ones work', async () => {
  await internet.serve(7000, (socket) => socket.pipe(socket));
  const subject = await laboratory.create();
  const echo = `exec 3<>/dev/tcp/${internet.host(10)}/7000; echo hello >&3; read -t 5 -u 3 line; echo "got $line"`;
  await laboratory.start(subject, `${echo} > /tmp/first; read -t 60 -u 3 line; echo "ended $?" > /tmp/cut; sleep 1000`);
  await laboratory.run(subject, 'while [ ! -s /tmp/first ]; do sleep 0.05; done');
  assert.equal(await laboratory.run(subject, 'cat /tmp/first'), 'got hello');
  const ref = await laboratory.save(subject, false);
  assert.match(await laboratory.run(subject, 'for i in $(seq 100); do [ -s /tmp/cut ] && break; sleep 0.05; done; cat /tmp/cut'), /^ended [1-9]/);
  assert.equal(await laboratory.run(subject, `bash -c '${echo}'`), 'got hello');
  const copy = await laboratory.restore(ref, subject);
  assert.match(await laboratory.run(copy, 'for i in $(seq 100); do [ -s /tmp/cut ] && break; sleep 0.05; done; cat /tmp/cut'), /^ended [1-9]/);
  assert.equal(await laboratory.run(copy, `bash -c '${echo}'`), 'got hello');
  await laboratory.host.removeCheckpoint(ref.id);
  await Promise.all([subject, copy].map(({ id }) => laboratory.host.destroy(id)));
});

test('a guest that writes all the time is saved whole', async () => {
  const subject = await laboratory.create();
  // Each record is written twice, in order: at any instant the second file is at most one record behind.
  await laboratory.start(subject, 'cd /home/user; echo $$ > /tmp/writer; i=0; while :; do i=$((i+1)); head -c 200000 /dev/urandom > block.$((i%20)); echo $i >> first; echo $i >> second; done');
  await sleep(1500);
  const ref = await laboratory.save(subject, false);
  await sleep(300);
  const copy = await laboratory.restore(ref, subject);
  for (const each of [subject, copy]) {
    // The writer stands still meanwhile: two files cannot be read in one instant.
    const script = 'kill -STOP $(cat /tmp/writer); sleep 0.2; cd /home/user; for f in first second; do n=$(wc -l < $f); seq $n | cmp -s - $f && echo $n || echo broken; done; kill -CONT $(cat /tmp/writer)';
    const [first, second] = (await laboratory.run(each, script)).split('\n').map(Number);
    assert.ok(second! > 0 && first! >= second! && first! <= second! + 1, `${each === copy ? 'copy' : 'source'}: ${first} ${second}`);
    await eventually(async () => assert.ok(Number(await laboratory.run(each, 'wc -l < /home/user/first')) > first!));
  }
  await laboratory.host.removeCheckpoint(ref.id);
  await Promise.all([subject, copy].map(({ id }) => laboratory.host.destroy(id)));
});

test('when the command that saves is killed midway, the guest goes on and can be saved', async () => {
  const subject = await laboratory.create();
  await laboratory.fillMemory(subject, 300);
  await laboratory.start(subject, counting);
  for (const waitMs of [0, 20, 60]) {
    const saving = laboratory.save(subject, true);
    saving.catch(() => {});
    const [saver] = await eventually(() => (saversOf(subject).length > 0 ? saversOf(subject) : false), { everyMs: 2 });
    await sleep(waitMs);
    process.kill(saver!, 'SIGKILL');
    await assert.rejects(saving, fails('unprocessable', /could not be saved and goes on: .*SIGKILL/));
    await assertCounts(subject);
    assert.deepEqual(laboratory.checkpointNames, []);
  }
  const ref = await laboratory.save(subject, false);
  await assertCounts(subject);
  await laboratory.host.removeCheckpoint(ref.id);
  await laboratory.host.destroy(subject.id);
});

test('a caller that gives up leaves a guest that runs', async () => {
  const subject = await laboratory.create();
  await laboratory.fillMemory(subject, 300);
  const leaving = new AbortController();
  const saving = laboratory.host.checkpoint(subject.id, { checkpointId: randomUUID(), hold: true, lap: (stage) => stage === 'hold' && setTimeout(() => leaving.abort(new Error('left')), 60) }, leaving.signal);
  await assert.rejects(saving, /left/);
  assert.equal(await laboratory.run(subject, 'echo alive'), 'alive');
  assert.deepEqual(laboratory.checkpointNames, []);
  await laboratory.host.destroy(subject.id);
});

test('a sandbox can be destroyed while it is saved, and nothing is left', async () => {
  const subject = await laboratory.create();
  await laboratory.fillMemory(subject, 200);
  const saving = laboratory.save(subject, true);
  const failed = assert.rejects(saving, fails('gone', /ended/));
  await eventually(() => saversOf(subject).length > 0, { everyMs: 2 });
  await laboratory.host.destroy(subject.id);
  await failed;
  assert.deepEqual([laboratory.guests, laboratory.checkpointNames, saversOf(subject)], [[], [], []]);
  assert.equal(laboratory.deaths.has(subject.id), false);
});

test('a guest that dies while it is saved is reported, and nothing is left', async () => {
  const subject = await laboratory.create();
  await laboratory.fillMemory(subject, 200);
  const saving = laboratory.save(subject, true);
  const failed = assert.rejects(saving, fails('gone', /ended while it was being saved/));
  await eventually(() => saversOf(subject).length > 0, { everyMs: 2 });
  process.kill(subject.ref.pid, 'SIGKILL');
  await failed;
  await eventually(() => laboratory.deaths.has(subject.id));
  await eventually(() => laboratory.guests.length === 0);
  assert.deepEqual(laboratory.checkpointNames, []);
});

test('a held guest can be destroyed', async () => {
  const subject = await laboratory.create();
  const ref = await laboratory.save(subject, true);
  await laboratory.host.destroy(subject.id);
  assert.deepEqual(laboratory.guests, []);
  await laboratory.host.retire(subject.id, ref.id, paused); // there is nobody any more
  await assert.rejects(async () => laboratory.host.proceed(subject.id), fails('gone', /ended/));
  await laboratory.host.removeCheckpoint(ref.id);
});

test('a full disk fails the save before it begins or midway, and the guest goes on', async () => {
  const small = new Laboratory();
  const image = join(laboratory.dataDir, 'small.img');
  closeSync(openSync(image, 'w'));
  await runTool('truncate', ['-s', '2400M', image]);
  await runTool('mkfs.ext4', ['-q', '-F', '-m', '0', '-O', '^has_journal', image]);
  await runTool('mkdir', ['-p', small.checkpointsDir]);
  await runTool('mount', ['-o', 'loop', image, small.checkpointsDir]);
  try {
    await small.open();
    const subject = await small.create();
    await small.fillMemory(subject, 100);
    const filler = join(small.checkpointsDir, 'filler');
    const fill = async (leaveMb: number): Promise<void> => {
      const { bavail, bsize } = statfsSync(small.checkpointsDir);
      await runTool('fallocate', ['-l', String(bavail * bsize - leaveMb * 1024 * 1024), filler]);
    };
    // Room enough when it begins; then somebody else takes it.
    let filled: Promise<void> | undefined;
    const midway = small.save(subject, true, randomUUID(), (stage) => {
      if (stage === 'hold') filled = fill(40);
    });
    await assert.rejects(midway, fails('no_space', /disk of the server is full/));
    await filled;
    assert.deepEqual(small.checkpointNames, ['filler']);
    assert.equal(await small.run(subject, 'echo alive'), 'alive');
    await assert.rejects(small.save(subject, true), fails('no_space', /takes up to \d+ MiB .* keeps 2048 MiB free/));
    assert.deepEqual(small.checkpointNames, ['filler']);
    assert.equal(await small.run(subject, 'echo alive'), 'alive');
    rmSync(filler);
    const ref = await small.save(subject, false);
    assert.ok(ref.bytes > 100 * 1024 * 1024);
    await small.host.destroy(subject.id);
  } finally {
    await small.host.close();
    await runTool('umount', [small.checkpointsDir]);
    rmSync(image);
    assert.deepEqual(await small.close(), []);
  }
});

test('a guest of before sandboxes could be saved is refused with a sentence, and runs on', async () => {
  const subject = await laboratory.create();
  const config = join(laboratory.dataDir, 'host/slots', String(subject.ref.slot), 'bundle/config.json');
  writeFileSync(config, '{}');
  await assert.rejects(laboratory.save(subject, true), fails('unprocessable', /earlier version of Paddock/));
  assert.equal(await laboratory.run(subject, 'echo alive'), 'alive');
  await laboratory.host.destroy(subject.id);
  await assert.rejects(async () => laboratory.save(subject, true), fails('gone', /ended/));
});

