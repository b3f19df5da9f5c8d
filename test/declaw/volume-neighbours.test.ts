import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, statSync, symlinkSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { ConflictError, NotFoundError, Sandbox, Volumes } from '@declaw/sdk';
import { archive, contentsOf } from '../harness/archives.ts';
import { mountsBelow } from '../harness/machine.ts';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually } from '../harness/wait.ts';

const server = serverOfThisFile({ PADDOCK_MAX_VOLUME_MB: '64', PADDOCK_KEPT_MEMORY: '0' });
const slotMounts = (): string[] => mountsBelow(join(server.dataDir, 'host', 'slots')).filter((point) => /\/volumes\/\d+/.test(point));
const filesOf = (volumeId: string): string => join(server.dataDir, 'volumes', volumeId.slice(4), 'fs', 'files');

test('the server is killed and comes back: mounts and files are still there, and at the end nothing is', async () => {
  const { volumeId } = await Volumes.empty('lasting');
  const sandbox = await Sandbox.create({ volumes: [{ volumeId, mountPath: '/data', mode: 'mount' }] });
  const writer = await sandbox.commands.run('i=0; while :; do i=$((i+1)); echo $i > /data/count; sleep 0.05; done', { background: true });
  await output(sandbox, 'while ! [ -e /data/count ]; do sleep 0.05; done');
  const before = Number(Buffer.from(await Volumes.files(volumeId).read('/count')).toString());
  await server.crash();
  await server.start();
  await Volumes.files(volumeId).write('/from-api', Buffer.from('again'));
  assert.equal(await output(sandbox, 'cat /data/from-api'), 'again');
  await eventually(async () => Number(Buffer.from(await Volumes.files(volumeId).read('/count')).toString()) > before);
  assert.equal(slotMounts().length, 1);
  await writer.kill();
  await sandbox.pause();
  await eventually(async () => slotMounts().length === 0);
  await server.crash();
  await server.start();
  await sandbox.resume();
  assert.equal(await output(sandbox, 'cat /data/from-api'), 'again');
  await sandbox.kill({ wait: true });
  assert.deepEqual(slotMounts(), []);
  await server.stop();
  assert.deepEqual(mountsBelow(server.dataDir), []);
  await server.start();
  assert.deepEqual((await Volumes.files(volumeId).list('/')).map(({ name }) => name), ['count', 'from-api']);
  await Volumes.delete(volumeId);
});

test('a fork, and a sandbox from a snapshot, have the same volumes mounted', async () => {
  const { volumeId } = await Volumes.empty('forked');
  const source = await Sandbox.create({ volumes: [{ volumeId, mountPath: '/data', mode: 'mount' }, { volumeId, mountPath: '/ro', mode: 'mount-ro' }] });
  await output(source, 'echo 1 > /data/a');
  await source.commands.run('cd /data; exec 3<a; sleep 600', { background: true });
  const forks = await server.call('POST', `/sandboxes/${source.sandboxId}/fork`, { json: { count: 2 } });
  const snapshot = await server.call('POST', `/sandboxes/${source.sandboxId}/snapshot`, { json: {} });
  const made = await server.call('POST', '/sandboxes', { json: { snapshot_id: snapshot.json.snapshot_id, network: { deny_out: ['*'] } } });
  assert.deepEqual([forks.status < 300, made.status], [true, 201], forks.text + made.text);
  const ids: string[] = [...(forks.json.sandboxes ?? forks.json.forks).map((each: { sandbox_id: string }) => each.sandbox_id), made.json.sandbox_id];
  for (const id of ids) {
    const copy = await Sandbox.connect(id);
    assert.equal(await output(copy, `echo ${id} >> /data/a; tail -1 /ro/a; (echo x > /ro/a) 2>/dev/null || echo refused`), `${id}\nrefused\n`);
  }
  assert.equal(await output(source, 'wc -l < /data/a'), '4\n');
  await assert.rejects(Volumes.delete(volumeId), (error) => error instanceof ConflictError && error.message.includes('(running)'));
  for (const id of [...ids, source.sandboxId]) await server.call('DELETE', `/sandboxes/${id}?wait=true`);
  await assert.rejects(Volumes.delete(volumeId), /the snapshot/);
  await server.call('DELETE', `/sandboxes/${source.sandboxId}/snapshots/${snapshot.json.snapshot_id}`);
  await eventually(async () => Volumes.delete(volumeId).then(() => true, () => false));
});

test('a volume in use is deleted by force only: what runs keeps it, and what is paused names it', async () => {
  const { volumeId } = await Volumes.empty('needed by many');
  const attach = { volumes: [{ volumeId, mountPath: '/data', mode: 'mount' as const }] };
  const [running, paused] = [await Sandbox.create(attach), await Sandbox.create(attach)];
  await output(running, 'echo kept > /data/a');
  await paused.pause();
  await assert.rejects(Volumes.delete(volumeId), (error) => error instanceof ConflictError && /\(running\).*\(paused\)|\(paused\).*\(running\)/.test(error.message) && /force=true/.test(error.message));
  assert.equal((await server.call('DELETE', `/volumes/${volumeId}?force=true`)).status, 200);
  await assert.rejects(Volumes.get(volumeId), NotFoundError);
  assert.equal(await output(running, 'cat /data/a; echo more > /data/b; ls /data'), 'kept\na\nb\n');
  await assert.rejects(paused.resume(), /the sandbox needs the volume "needed by many"/);
  const answer = await server.call('POST', `/sandboxes/${paused.sandboxId}/resume`);
  assert.equal(answer.status, 409, answer.text);
  assert.equal((await server.call('GET', `/sandboxes/${paused.sandboxId}`)).json.state, 'paused');
  for (const sandbox of [running, paused]) await sandbox.kill({ wait: true });
  assert.deepEqual([slotMounts(), existsSync(join(server.dataDir, 'volumes', volumeId.slice(4)))], [[], false]);
});

test('a link that a sandbox plants leads no call out of the volume, and no mount', async () => {
  const { volumeId } = await Volumes.create('planted', archive({ name: 'real/inner/file', data: 'inside' }));
  const { volumeId: other } = await Volumes.create('secret', archive({ name: 'file', data: 'of another' }));
  const attacker = await Sandbox.create({ volumes: [{ volumeId, mountPath: '/data', mode: 'mount' }] });
  const target = filesOf(other);
  await output(attacker, `ln -s / /data/root; ln -s ${target} /data/other; ln -s ../../../.. /data/up; ln -s loop /data/loop; ln -s /data/loop /data/real/loop`);
  const files = Volumes.files(volumeId);
  for (const path of ['/root/etc/passwd', '/other/file', '/up/disk.img', '/loop', '/loop/x', '/real/loop']) {
    await assert.rejects(files.read(path), path);
    await assert.rejects(files.list(path), path);
    assert.equal(await files.exists(path).catch(() => false), false, path);
  }
  await assert.rejects(files.write('/other/file', Buffer.from('x')));
  await assert.rejects(files.mkdir('/root/tmp/made'));
  await assert.rejects(files.rename('/other/file', '/taken'));
  await assert.rejects(files.remove('/other/file'));
  assert.deepEqual(Object.keys(contentsOf(await Volumes.download(volumeId))), ['real/', 'real/inner/', 'real/inner/file']);
  for (const mode of ['mount', 'mount-ro', 'copy']) {
    for (const subpath of ['root', 'other', 'up', 'loop', 'real/loop', 'root/etc', '../..', 'real/../..']) {
      const answer = await server.call('POST', '/sandboxes', { json: { volumes: [{ volume_id: volumeId, mount_path: '/data', mode, subpath }] } });
      assert.ok([400, 404, 409].includes(answer.status), `${mode} ${subpath}: ${answer.text}`);
    }
  }
  // Between the look at a subpath and its mount it may become a link: whatever is mounted is inside.
  await output(attacker, `mkdir /data/x; nohup sh -c 'while :; do mv -T /data/real /data/hidden; ln -sfn ${target} /data/real; sleep 0.01; rm /data/real; mv -T /data/hidden /data/real; sleep 0.05; done' >/dev/null 2>&1 &`);
  let mounted = 0;
  for (let attempt = 0; mounted < 3 && attempt < 200; attempt++) {
    const answer = await server.call('POST', '/sandboxes', { json: { volumes: [{ volume_id: volumeId, mount_path: '/data', mode: attempt % 2 === 0 ? 'mount' : 'mount-ro', subpath: 'real' }] } });
    assert.ok([201, 400, 404, 409].includes(answer.status), answer.text);
    if (answer.status !== 201) continue;
    mounted++;
    const victim = await Sandbox.connect(answer.json.sandbox_id);
    assert.equal(await output(victim, 'cat /data/file 2>/dev/null; cat /data/inner/file'), 'inside');
    await victim.kill({ wait: true });
  }
  assert.equal(mounted, 3);
  await attacker.kill({ wait: true });
  assert.equal(Buffer.from(await Volumes.files(other).read('/file')).toString(), 'of another');
  for (const id of [volumeId, other]) await Volumes.delete(id);
});

test('files that change while the server reads and packs them break nothing but themselves', async () => {
  const { volumeId } = await Volumes.empty('restless');
  const sandbox = await Sandbox.create({ volumes: [{ volumeId, mountPath: '/data', mode: 'mount' }] });
  await output(sandbox, `mkdir /data/d; head -c 3M /dev/zero > /data/shrinks; echo fine > /data/fine
nohup sh -c 'while :; do head -c 3M /dev/zero > /data/shrinks; : > /data/shrinks; done' >/dev/null 2>&1 &
nohup sh -c 'while :; do rm -rf /data/d; : > /data/d; rm /data/d; mkfifo /data/d; rm /data/d; ln -s /etc/passwd /data/d; rm /data/d; mkdir -p /data/d/e; : > /data/d/e/f; done' >/dev/null 2>&1 &`);
  const files = Volumes.files(volumeId);
  for (let i = 0; i < 8; i++) {
    const contents = contentsOf(await Volumes.download(volumeId));
    assert.ok('fine' in contents);
    for (const name of Object.keys(contents)) assert.match(name, /^(fine|shrinks|(d|moved)(\/(e\/?(f|api|deep\/)?)?)?)$/);
    await Promise.allSettled([files.read('/d'), files.list('/d'), files.write('/d/e/api', Buffer.from('x')), files.remove('/d', { recursive: true }), files.rename('/d', '/moved'), files.remove('/moved', { recursive: true }), files.mkdir('/d/e/deep'), files.read('/shrinks'), Volumes.commit(sandbox.sandboxId, volumeId).then((made) => Volumes.delete(made.volumeId))]);
    assert.equal(Buffer.from(await files.read('/fine')).toString(), 'fine\n');
  }
  await sandbox.kill({ wait: true });
  await Volumes.delete(volumeId);
});

test('FIFOs, sockets, devices, set-uid programs and trees without end in a volume do no harm', async () => {
  const { volumeId } = await Volumes.empty('hostile');
  const sandbox = await Sandbox.create({ volumes: [{ volumeId, mountPath: '/data', mode: 'mount' }] });
  await sandbox.commands.run(`cd /data; mkfifo fifo; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/data/socket")'; mknod disk b 7 0; mknod null c 1 3; cp /bin/sh sh; chown 0:0 sh; chmod 6755 sh; : > plain`, { user: 'root' }).catch(() => undefined);
  await sandbox.commands.run('cd /data; mkdir deep; cd deep; for i in $(seq 300); do mkdir d && cd d; done; : > bottom', { user: 'root' });
  const device = [dirname(filesOf(volumeId)), ...slotMounts()];
  assert.equal(device.length, 2);
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter((each) => device.some((point) => each.includes(` ${point} `)))) assert.match(line, /nosuid,nodev/);
  // As the host has them, should anything ever make them: the server neither opens nor shows them.
  const files = filesOf(volumeId);
  for (const name of readdirSync(files)) assert.ok(!statSync(join(files, name)).isBlockDevice() && !statSync(join(files, name)).isCharacterDevice(), name);
  symlinkSync('/etc/passwd', join(files, 'host-link'));
  const listed = (await Volumes.files(volumeId).list('/')).map(({ name }) => name);
  assert.deepEqual(listed, ['deep', 'plain', 'sh']);
  for (const name of ['fifo', 'socket', 'disk', 'null', 'host-link']) await assert.rejects(Volumes.files(volumeId).read(`/${name}`), name);
  assert.equal((await Volumes.files(volumeId).info('/sh')).mode, 0o755);
  const packed = Object.keys(contentsOf(await Volumes.download(volumeId)));
  assert.ok(packed.includes('sh') && packed.length < 70, String(packed.length));
  unlinkSync(join(files, 'host-link'));
  // Another way to make something that the server would wait for.
  await Volumes.files(volumeId).remove('/deep', { recursive: true });
  assert.equal(await Volumes.files(volumeId).exists('/deep'), false);
  await sandbox.kill({ wait: true });
  await Volumes.delete(volumeId);
});
