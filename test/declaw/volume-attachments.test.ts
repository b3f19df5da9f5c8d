import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { ConflictError, InvalidArgumentError, NotEnoughSpaceError, NotFoundError, Sandbox, Volumes } from '@declaw/sdk';
import { archive, contentsOf, digest } from '../harness/archives.ts';
import { guestGroupsOf } from '../harness/machine.ts';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { volumeStorage } from '../harness/volume-storage.ts';

const server = serverOfThisFile({ PADDOCK_MAX_VOLUME_MB: '8', ...volumeStorage.settings });
const volumes = (): readonly string[] => volumeStorage.kept(server);
/** Refused for another reason where nothing can be mounted at all; `volume-store.test.ts` says which. */
const mountable = volumeStorage.store === null;

test('a sandbox starts with the files of its volumes, as its own, and changes nothing of theirs', async () => {
  const big = randomBytes(2_000_000);
  const project = await Volumes.create('project', archive({ name: 'run.sh', data: '#!/bin/sh\necho ran\n', mode: 0o4755 }, { name: 'src/a', data: 'a' }, { name: 'src/deep/big', data: big }, { name: 'none/', type: '5' }, { name: "it's odd: $(id)", data: 'odd' }));
  const sandbox = await Sandbox.create({ volumes: [{ volumeId: project.volumeId, mountPath: '/data/project' }, { volumeId: project.volumeId, mountPath: '/home/user/part/', mode: 'copy', subpath: 'src/deep' }] });
  assert.equal(await output(sandbox, '/data/project/run.sh; cat "/data/project/it\'s odd: \\$(id)"'), 'ran\nodd');
  assert.equal(await output(sandbox, 'cd /data/project; stat -c "%U:%G %a %n" . run.sh src src/a none'), 'user:user 755 .\nuser:user 755 run.sh\nuser:user 755 src\nuser:user 644 src/a\nuser:user 755 none\n');
  assert.equal(await output(sandbox, 'ls /home/user/part; cmp /home/user/part/big /data/project/src/deep/big; wc -c < /home/user/part/big'), 'big\n2000000\n');
  await sandbox.files.write('/data/project/src/a', 'changed');
  assert.equal(Buffer.from(await Volumes.files(project.volumeId).read('/src/a')).toString(), 'a');
  const info = await server.call('GET', `/sandboxes/${sandbox.sandboxId}`);
  assert.equal(info.json.volumes[0].mount_path, '/data/project');
  await sandbox.kill({ wait: true });
  await Volumes.delete(project.volumeId);
});

test('a create that asks for what cannot be attached is refused with the field, and makes nothing', async () => {
  const { volumeId } = await Volumes.create('v', archive({ name: 'file', data: 'x' }));
  const refused: [object, number, RegExp][] = [
    [{ volume_id: volumeId, mount_path: '/data', mode: 'move' }, 400, /mode/],
    [{ volume_id: volumeId, mount_path: '/data', write_back: true }, 400, /^volumes\[0\]\.write_back is not known/],
    [{ volume_id: volumeId, mount_path: '/home/user/.bashrc', mode: 'mount' }, 400, /not a directory/],
    [{ volume_id: volumeId, mount_path: '/data', mode: 'mount', subpath: 'file' }, 400, /^volumes\[0\]\.subpath is a file/],
    [{ volume_id: volumeId, mount_path: '/data', mode: 'mount-ro', subpath: 'missing' }, 404, /missing/],
    [{ volume_id: volumeId, mount_path: '/.paddock/volumes/1', mode: 'mount' }, 400, /^volumes\[0\]\.mount_path/],
    ...['/', '/etc', '/usr/lib', '/proc/1', '/data/../etc'].map((path): [object, number, RegExp] => [{ volume_id: volumeId, mount_path: path }, 400, /^volumes\[0\]\.mount_path/]),
    [{ volume_id: volumeId, mount_path: '/data', subpath: '../..' }, 400, /^volumes\[0\]\.subpath/],
    [{ volume_id: volumeId, mount_path: '/data', subpath: 'file' }, 400, /^volumes\[0\]\.subpath is a file/],
    [{ volume_id: volumeId, mount_path: '/data', subpath: 'missing' }, 404, /missing/],
    [{ volume_id: 'vol-00000000-0000-4000-8000-000000000000', mount_path: '/data' }, 404, /no such volume/],
    [{ volume_id: 'vol-1', mount_path: '/data' }, 404, /vol-1/],
  ];
  for (const [volume, status, message] of refused.filter(([volume]) => mountable || !JSON.stringify(volume).includes('"mode":"mount'))) {
    const answer = await server.call('POST', '/sandboxes', { json: { volumes: [volume] } });
    assert.deepEqual([answer.status, message.test(answer.json.message)], [status, true], `${JSON.stringify(volume)}: ${answer.text}`);
  }
  const nested = [{ volume_id: volumeId, mount_path: '/data', mode: 'mount' }, { volume_id: volumeId, mount_path: '/data/inner' }];
  for (const pair of [nested, nested.toReversed()]) assert.match((await server.call('POST', '/sandboxes', { json: { volumes: pair } })).json.message, /^volumes\[1\]\.mount_path lies inside/);
  const many = Array.from({ length: 17 }, (_, i) => ({ volume_id: volumeId, mount_path: `/data${i}`, mode: 'mount-ro' }));
  assert.match((await server.call('POST', '/sandboxes', { json: { volumes: many } })).json.message, /the limit is 16/);
  const from = await server.call('POST', '/sandboxes', { json: { snapshot_id: 'snap-00000000-0000-4000-8000-000000000000', volumes: [{ volume_id: volumeId, mount_path: '/data' }] } });
  assert.deepEqual([from.status, from.json.message.startsWith('volumes cannot be given')], [400, true]);
  assert.deepEqual((await server.call('GET', '/sandboxes')).json.sandboxes.filter(({ state }: { state: string }) => state === 'running'), []);
  await Volumes.delete(volumeId);
});

test('a copy that fails in the middle leaves no sandbox', async () => {
  // Linux takes no file below another: the template has one at this path.
  const { volumeId } = await Volumes.create('v', archive({ name: 'a', data: 'x' }));
  const answer = await server.call('POST', '/sandboxes', { json: { volumes: [{ volume_id: volumeId, mount_path: '/home/user/.bashrc' }] } });
  assert.equal(answer.status, 400, answer.text);
  assert.equal((await server.call('GET', '/sandboxes')).json.sandboxes.filter(({ state }: { state: string }) => state === 'running').length, 0);
  assert.deepEqual(guestGroupsOf(server.dataDir), []);
  await Volumes.delete(volumeId);
});

test('the directory of an attached volume is committed to a new one, and any other directory to another', async () => {
  const source = await Volumes.create('source', archive({ name: 'a', data: 'a' }, { name: 'b', data: 'b' }));
  const other = await Volumes.empty('other');
  const sandbox = await Sandbox.create({ volumes: [{ volumeId: source.volumeId, mountPath: '/data' }] });
  await output(sandbox, 'cd /data; echo more >> a; rm b; mkdir -p new/dir; printf "#!/bin/sh\\n" > new/run; chmod 4755 new/run; ln -s /etc/passwd link; mkfifo pipe');
  await sandbox.commands.run('echo hidden > /data/secret; chmod 600 /data/secret', { user: 'root' });
  const committed = await Volumes.commit(sandbox.sandboxId, source.volumeId);
  assert.equal(committed.name, 'source-commit');
  assert.deepEqual([committed.metadata['skipped_links_and_special_files'], committed.sizeBytes], ['2', 6 + 10 + 7]);
  assert.deepEqual(contentsOf(await Volumes.download(committed.volumeId)), { a: `644 ${digest('amore\n')}`, 'new/': 'dir', 'new/dir/': 'dir', 'new/run': `755 ${digest('#!/bin/sh\n')}`, secret: `600 ${digest('hidden\n')}` });
  assert.deepEqual(contentsOf(await Volumes.download(source.volumeId)), { a: `644 ${digest('a')}`, b: `644 ${digest('b')}` });
  const snapshot = await Volumes.snapshot(sandbox.sandboxId, '/data/new', 'named');
  assert.equal(snapshot.name, 'named');
  assert.deepEqual(Object.keys(contentsOf(await Volumes.download(snapshot.volumeId))), ['dir/', 'run']);
  assert.equal((await Volumes.snapshot(sandbox.sandboxId, '/data/new')).name, 'snapshot');
  await assert.rejects(Volumes.commit(sandbox.sandboxId, other.volumeId), (error) => error instanceof InvalidArgumentError && /not attached/.test(error.message));
  for (const path of ['/proc', '/sys/kernel', '/dev', '/', '/data/../proc', 'data', '/data/a', '/data/link']) await assert.rejects(Volumes.snapshot(sandbox.sandboxId, path), InvalidArgumentError, path);
  await assert.rejects(Volumes.snapshot(sandbox.sandboxId, '/not/there'), NotFoundError);
  await sandbox.pause();
  await assert.rejects(Volumes.commit(sandbox.sandboxId, source.volumeId), ConflictError);
  await sandbox.kill({ wait: true });
  for (const { volumeId } of await Volumes.list()) await Volumes.delete(volumeId);
});

test('a directory that is too large or too deep for a volume leaves none', async () => {
  const sandbox = await Sandbox.create();
  await output(sandbox, 'mkdir big deep; head -c 9M /dev/zero > big/f; cd deep; for i in $(seq 70); do mkdir d; cd d; done');
  await assert.rejects(Volumes.snapshot(sandbox.sandboxId, '/home/user/big'), NotEnoughSpaceError);
  await assert.rejects(Volumes.snapshot(sandbox.sandboxId, '/home/user/deep'), /levels deep; the limit is 64/);
  assert.deepEqual([volumes(), await Volumes.list()], [[], []]);
  await sandbox.kill({ wait: true });
});
