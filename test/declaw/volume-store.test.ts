import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Sandbox, Volumes } from '@declaw/sdk';
import { archive, contentsOf, digest } from '../harness/archives.ts';
import { TestObjectStore } from '../harness/object-store.ts';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile, TestServer } from '../harness/server.ts';
import { eventually } from '../harness/wait.ts';

const store = await TestObjectStore.open();
const server = serverOfThisFile({ PADDOCK_MAX_VOLUME_MB: '64', ...store.settings() });
const chunks = (): readonly string[] => store.objects.filter((name) => name.includes('/chunks/'));
const put = (id: string, path: string, body: string | ReadableStream): Promise<Response> =>
  fetch(`${server.url}/volumes/${id}/files/raw?path=${encodeURIComponent(path)}`, { method: 'PUT', headers: { authorization: `Bearer ${server.apiKey}`, 'content-type': 'application/octet-stream' }, body, duplex: 'half' } as RequestInit);

test('a volume cannot be mounted: the create is refused with the field, and makes nothing', async () => {
  const { volumeId } = await Volumes.empty('v');
  for (const mode of ['mount', 'mount-ro']) {
    const answer = await server.call('POST', '/sandboxes', { json: { volumes: [{ volume_id: volumeId, mount_path: '/a' }, { volume_id: volumeId, mount_path: '/b', mode }] } });
    assert.deepEqual([answer.status, answer.json.message], [400, `volumes[1].mode cannot be ${mode}: this server keeps volumes in an object store (PADDOCK_VOLUME_STORE), and nothing there can be mounted; use copy, and commit what is to be kept`]);
  }
  assert.deepEqual((await Sandbox.list()).sandboxes, []);
  await Volumes.delete(volumeId);
});

test('a sandbox works on a copy, and what it commits is a volume in the store', async () => {
  const big = randomBytes(9_000_000);
  const source = await Volumes.create('source', archive({ name: 'big', data: big }, { name: 'run', data: '#!/bin/sh\necho ran\n', mode: 0o755 }));
  const sandbox = await Sandbox.create({ volumes: [{ volumeId: source.volumeId, mountPath: '/data' }] });
  assert.equal(await output(sandbox, '/data/run; echo more > /data/new; wc -c < /data/big'), 'ran\n9000000\n');
  const next = await Volumes.commit(sandbox.sandboxId, source.volumeId);
  await sandbox.kill({ wait: true });
  assert.deepEqual(contentsOf(await Volumes.download(next.volumeId)), { big: `644 ${digest(big)}`, new: `644 ${digest('more\n')}`, run: `755 ${digest('#!/bin/sh\necho ran\n')}` });
  await Volumes.delete(source.volumeId);
  await Volumes.delete(next.volumeId);
  assert.deepEqual(store.objects, ['paddock/owner']);
});

test('hostile paths reach nothing but their own volume', async () => {
  const [mine, other] = [await Volumes.empty('mine'), await Volumes.create('other', archive({ name: 'secret', data: 'secret' }))];
  const id = other.volumeId.slice(4);
  for (const path of [`../${id}/manifest`, `../../volumes/${id}/chunks/x`, `/../${id}/secret`, `a/../../${id}/secret`, 'a\0b']) {
    for (const call of [`files/raw?path=`, `files/info?path=`, `files/list?path=`]) {
      assert.equal((await server.call('GET', `/volumes/${mine.volumeId}/${call}${encodeURIComponent(path)}`)).status, 400, path);
    }
    assert.equal((await put(mine.volumeId, path, 'x')).status, 400, path);
  }
  for (const path of [`..%2f${id}%2fsecret`, `．．/${id}/secret`, `..\\${id}\\secret`, `%2e%2e/${id}/secret`, `\u2024\u2024/${id}/secret`]) {
    assert.equal((await server.call('GET', `/volumes/${mine.volumeId}/files/raw?path=${encodeURIComponent(path)}`)).status, 404, path);
    assert.equal((await put(mine.volumeId, path, 'mine')).status, 200, path);
  }
  assert.deepEqual(Object.keys(contentsOf(await Volumes.download(other.volumeId))), ['secret']);
  assert.equal(Buffer.from(await Volumes.files(other.volumeId).read('/secret')).toString(), 'secret');
  await Volumes.delete(mine.volumeId);
  await Volumes.delete(other.volumeId);
});

test('SIGKILL of the server in the middle of an upload: the old file is whole, and the parts of the new one are swept', async () => {
  const volume = await Volumes.create('kept', archive({ name: 'f', data: 'old' }));
  const body = new ReadableStream({
    async pull(controller) {
      controller.enqueue(randomBytes(1_000_000));
      await new Promise((resolve) => setTimeout(resolve, 5));
      if (chunks().length >= 4) return new Promise(() => {}); // the rest never comes
      return undefined;
    },
  });
  const sent = put(volume.volumeId, '/f', body).catch(() => null);
  await eventually(() => assert.ok(chunks().length >= 4));
  await server.crash();
  await sent;
  await server.start();
  assert.equal(Buffer.from(await Volumes.files(volume.volumeId).read('/f')).toString(), 'old');
  await eventually(() => assert.equal(chunks().length, 1));
  await Volumes.delete(volume.volumeId);
});

for (const [when, fate, left] of [['before', 'cut', 'old'], ['after', 'cut after', 'new']] as const) {
  test(`SIGKILL of the server ${when} the store has taken the manifest: the file is whole, and nothing else is left`, async () => {
    const volume = await Volumes.create('kept', archive({ name: 'd/f', data: 'old' }));
    let crashed: Promise<void> | null = null;
    store.front.fate = ({ method, path }) => {
      if (method !== 'PUT' || !path.includes('/manifest')) return 'pass';
      crashed ??= server.crash();
      return fate;
    };
    await put(volume.volumeId, '/d/f', 'new').catch(() => null);
    await crashed;
    store.front.fate = () => 'pass';
    await server.start();
    assert.equal(Buffer.from(await Volumes.files(volume.volumeId).read('/d/f')).toString(), left);
    await eventually(() => assert.equal(chunks().length, 1));
    assert.equal((await Volumes.files(volume.volumeId).list('/d')).length, 1);
    await Volumes.delete(volume.volumeId);
  });
}

test('large files go through one after another, and leave nothing of those that they replace', async () => {
  const volume = await Volumes.empty('large');
  const part = randomBytes(1_000_000);
  const body = (): ReadableStream => {
    let sent = 0;
    return new ReadableStream({ pull: (controller) => (sent++ < 60 ? controller.enqueue(part) : controller.close()) });
  };
  for (let i = 0; i < 5; i++) assert.equal((await put(volume.volumeId, '/f', body())).status, 200);
  await eventually(() => assert.equal(chunks().length, 15));
  await Volumes.delete(volume.volumeId);
});

test('a store that is down: 503 with what to do, sandboxes go on, the server stops and nothing is lost', async () => {
  const volume = await Volumes.create('v', archive({ name: 'f', data: 'old' }));
  const sandbox = await Sandbox.create();
  await store.stop();
  const answers = [await put(volume.volumeId, '/f', 'new'), await fetch(`${server.url}/volumes/empty?name=w`, { method: 'POST', headers: { authorization: `Bearer ${server.apiKey}` } })];
  for (const answer of answers) {
    assert.deepEqual([answer.status, answer.headers.get('retry-after')], [503, '5']);
    assert.match(((await answer.json()) as { message: string }).message, /the object store that volumes lie in cannot be used at the moment/);
  }
  assert.equal((await Volumes.list()).length, 1);
  assert.equal(await output(sandbox, 'echo on'), 'on\n');
  assert.equal(await server.stop(), 0);
  const refused = await server.paddock(['start']);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /PADDOCK_VOLUME_STORE: s3:\/\/volumes\/paddock\/ cannot be used: the server cannot be reached \(ECONNREFUSED\)\./);
  const paused = await server.paddock(['stop', '--pause'], { PADDOCK_VOLUME_STORE: '' }); // by hand, without the settings of the service
  assert.deepEqual([paused.code, paused.stderr], [0, '']);
  await store.start();
  await server.start();
  assert.equal(Buffer.from(await Volumes.files(volume.volumeId).read('/f')).toString(), 'old');
  await eventually(async () => assert.equal(await output(sandbox, 'echo on'), 'on\n'));
  await sandbox.kill({ wait: true });
  await Volumes.delete(volume.volumeId);
});

test('starts that would lose volumes, or show a key, are refused with a sentence', async () => {
  const volume = await Volumes.create('v', archive({ name: 'f', data: 'x' }));
  await server.stop();
  const file = join(server.dataDir, 'key.json');
  writeFileSync(file, JSON.stringify({ accessKeyId: 'S3RVER', secretAccessKey: 'not-the-secret' }));
  const damaged = join(server.dataDir, 'damaged.json');
  writeFileSync(damaged, '{"secretAccessKey": "not-the-secret"');
  const cases: [settings: Record<string, string>, message: RegExp][] = [
    [{ PADDOCK_VOLUME_STORE: '' }, /the 1 volumes that there are are in s3:\/\/volumes\/paddock\//],
    [{ PADDOCK_VOLUME_STORE: 's3://volumes/elsewhere' }, /the 1 volumes that there are are in s3:\/\/volumes\/paddock\//],
    [{ PADDOCK_VOLUME_STORE_CREDENTIALS: file }, /the secret key does not belong to the access key/],
    [{ PADDOCK_VOLUME_STORE_CREDENTIALS: damaged }, /damaged\.json must be JSON such as/],
    [{ AWS_SECRET_ACCESS_KEY: '' }, /needs a key/],
  ];
  for (const [settings, message] of cases) {
    const { code, stdout, stderr } = await server.paddock(['start'], settings);
    assert.equal(code, 1);
    assert.match(stderr, message);
    assert.doesNotMatch(stdout + stderr, /not-the-secret/);
  }
  const other = new TestServer(store.settings());
  try {
    await assert.rejects(other.start(), /has the volumes of another server, or of another data directory/);
  } finally {
    await other.remove();
  }
  await server.start();
  assert.equal(Buffer.from(await Volumes.files(volume.volumeId).read('/f')).toString(), 'x');
  await Volumes.delete(volume.volumeId);
  assert.doesNotMatch(server.log, /S3RVER/);
  assert.match(readFileSync(join(server.dataDir, 'volume-store.json'), 'utf8'), /"store":"s3:\/\/volumes\/paddock\/"/);
});
