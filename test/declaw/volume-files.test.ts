import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { ConflictError, InvalidArgumentError, NotEnoughSpaceError, NotFoundError, Volumes } from '@declaw/sdk';
import { archive } from '../harness/archives.ts';
import { prepare, serverOfThisFile } from '../harness/server.ts';
import { volumeStorage } from '../harness/volume-storage.ts';
import { eventually } from '../harness/wait.ts';

const server = serverOfThisFile({ PADDOCK_MAX_VOLUME_MB: '4', ...volumeStorage.settings });
let id = '';
prepare(async () => {
  id = (await Volumes.create('files', archive({ name: 'given/by/archive', data: 'from the archive' }))).volumeId;
});
const files = () => Volumes.files(id);
const locks = () => Volumes.locks(id);

test('files are written, read, listed, looked at, moved and removed, with or without a slash in front', async () => {
  const bytes = new Uint8Array(randomBytes(200_000));
  assert.equal(await files().write('/new/deep/bytes', bytes), '/new/deep/bytes');
  assert.deepEqual(await files().read('new/deep/bytes'), bytes);
  assert.equal(Buffer.from(await files().read('/given/by/archive')).toString(), 'from the archive');
  const [entry] = await files().list('/new/deep');
  assert.deepEqual({ ...entry, modTime: '' }, { name: 'bytes', path: '/new/deep/bytes', isDir: false, size: 200_000, modTime: '', mode: 0o644 });
  assert.deepEqual((await files().list('/')).map(({ path, isDir }) => [path, isDir]), [['/given', true], ['/new', true]]);
  assert.match((await files().info('/new/deep/bytes')).modTime, /Z$/);
  assert.equal(await files().mkdir('/empty/dir'), '/empty/dir');
  assert.equal(await files().mkdir('/empty/dir'), '/empty/dir');
  assert.deepEqual(await files().rename('/new/deep/bytes', '/else/where'), { oldPath: '/new/deep/bytes', newPath: '/else/where' });
  assert.deepEqual([await files().exists('/new/deep/bytes'), await files().exists('/else/where'), await files().exists('/new/deep')], [false, true, true]);
  await assert.rejects(files().remove('/else'), ConflictError);
  await files().remove('/else', { recursive: true });
  await files().remove('/empty/dir');
  await files().remove('/not/there');
  assert.equal(await files().exists('/else'), false);
  await files().write('/nothing', new Uint8Array());
  assert.deepEqual(await files().read('/nothing'), new Uint8Array());
  assert.equal((await Volumes.get(id)).sizeBytes, 16);
  const raw = await server.call('DELETE', `/volumes/${id}/files?path=/nothing`);
  assert.deepEqual([raw.status, raw.text], [204, '']);
});

test('a write with a version goes through once: of many at a time, and of those that come late', async () => {
  await files().write('/counter', Buffer.from('0'));
  const { version } = await files().info('/counter');
  const outcomes = await Promise.allSettled(Array.from({ length: 12 }, (_, i) => files().write('/counter', Buffer.from(`writer ${i}`), { ifVersion: version })));
  assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
  for (const each of outcomes) assert.ok(each.status === 'fulfilled' || each.reason instanceof ConflictError, JSON.stringify(each));
  const winner = outcomes.findIndex(({ status }) => status === 'fulfilled');
  assert.equal(Buffer.from(await files().read('/counter')).toString(), `writer ${winner}`);
  const { version: next } = await files().info('/counter');
  assert.notEqual(next, version);
  await files().write('/counter', Buffer.from('next'), { ifVersion: next });
  await files().remove('/counter');
  await assert.rejects(files().write('/counter', Buffer.from('late'), { ifVersion: next }), ConflictError);
  assert.equal(await files().exists('/counter'), false);
});

test('counters that many keep with versions lose nothing', async () => {
  await files().write('/sum', Buffer.from('0'));
  const addOne = async (): Promise<void> => {
    for (;;) {
      const { version } = await files().info('/sum');
      const value = Number(Buffer.from(await files().read('/sum')).toString());
      try {
        await files().write('/sum', Buffer.from(String(value + 1)), { ifVersion: version });
        return;
      } catch (error) {
        if (!(error instanceof ConflictError)) throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: 6 }, async () => {
    for (let i = 0; i < 5; i++) await addOne();
  }));
  assert.equal(Buffer.from(await files().read('/sum')).toString(), '30');
});

test('paths that lead out, or nowhere, are refused by every call', async () => {
  for (const path of ['../out', '/a/../../out', 'a/..', '/..']) {
    const calls = [files().read(path), files().write(path, Buffer.from('x')), files().list(path), files().info(path), files().exists(path), files().remove(path, { recursive: true }), files().mkdir(path), files().rename(path, '/x'), files().rename('/given', path), locks().acquire(path)];
    await Promise.all(calls.map((call) => assert.rejects(call, InvalidArgumentError, path)));
  }
  for (const path of ['a%00b', `${'d/'.repeat(65)}f`, 'n'.repeat(256)]) assert.equal((await server.call('PUT', `/volumes/${id}/files/raw?path=${path}`, { body: 'x' })).status, 400, path);
  await assert.rejects(files().remove('/', { recursive: true }), InvalidArgumentError);
  await assert.rejects(files().rename('/', '/x'), InvalidArgumentError);
  await assert.rejects(files().write('/', Buffer.from('x')), InvalidArgumentError);
  await assert.rejects(files().write('/given', Buffer.from('x')), InvalidArgumentError);
  await assert.rejects(files().write('/given/by/archive/below', Buffer.from('x')), InvalidArgumentError);
  await assert.rejects(files().rename('/given', '/given/by/itself'), InvalidArgumentError);
  await assert.rejects(files().read('/given'), InvalidArgumentError);
  await assert.rejects(files().read('/not/there'), NotFoundError);
  await assert.rejects(files().info('/not/there'), NotFoundError);
  await assert.rejects(files().list('/not/there'), NotFoundError);
  await assert.rejects(files().rename('/not/there', '/x'), NotFoundError);
});

test('a volume does not grow beyond its limit, however many write at once, and a broken upload changes nothing', async () => {
  const mib = new Uint8Array(1_048_576);
  const outcomes = await Promise.allSettled(Array.from({ length: 8 }, (_, i) => files().write(`/big/${i}`, mib)));
  for (const each of outcomes) assert.ok(each.status === 'fulfilled' || each.reason instanceof NotEnoughSpaceError, JSON.stringify(each));
  assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 3);
  const there = outcomes.findIndex(({ status }) => status === 'fulfilled');
  await files().write(`/big/${there}`, mib.subarray(1)).catch(() => assert.fail('replacing takes no more room'));
  assert.equal((await server.call('PUT', `/volumes/${id}/files/raw?path=/x`, { headers: { 'content-length': String(5 << 20), connection: 'close' } })).status, 413);
  const controller = new AbortController();
  const half = new ReadableStream({ start: (stream) => stream.enqueue(mib.subarray(0, 1000)) });
  const sent = fetch(`${server.url}/volumes/${id}/files/raw?path=/given/by/archive`, { method: 'PUT', headers: { authorization: `Bearer ${server.apiKey}` }, body: half, duplex: 'half', signal: controller.signal } as RequestInit);
  setTimeout(() => controller.abort(), 200);
  await assert.rejects(sent);
  assert.equal(Buffer.from(await files().read('/given/by/archive')).toString(), 'from the archive');
  await files().remove('/big', { recursive: true });
});

test('a lock is held by one, renewed and released by its token only, and ends by itself', async () => {
  const lease = await locks().acquire('/job', 30);
  assert.ok(lease.token.length >= 32 && lease.ttlSeconds === 30 && lease.expiresAt.endsWith('Z'));
  await assert.rejects(locks().acquire('job'), ConflictError);
  const status = await locks().status('/job');
  assert.ok(status.held && status.expiresInMs > 20_000 && status.expiresInMs <= 30_000);
  assert.equal((await locks().renew('/job', lease.token, 60)).ttlSeconds, 60);
  assert.ok((await locks().status('/job')).expiresInMs > 50_000);
  await assert.rejects(locks().renew('/job', 'somebody else'), ConflictError);
  await assert.rejects(locks().release('/job', 'somebody else'), ConflictError);
  assert.equal(await locks().release('/job', lease.token), true);
  assert.equal(await locks().release('/job', lease.token), false);
  assert.deepEqual(await locks().status('/job'), { held: false, expiresInMs: 0 });
  const short = await locks().acquire('/job', 1);
  await eventually(async () => !(await locks().status('/job')).held);
  await assert.rejects(locks().renew('/job', short.token), ConflictError);
  await locks().release('/job', (await locks().acquire('/job')).token);
  for (const seconds of [0, -1, 86_401, 1.5]) await assert.rejects(locks().acquire('/job', seconds), InvalidArgumentError);
  const racing = await Promise.allSettled(Array.from({ length: 10 }, () => locks().acquire('/race', 5)));
  assert.equal(racing.filter(({ status }) => status === 'fulfilled').length, 1);
});

test('files, versions and locks survive a crash of the server', async () => {
  await files().write('/kept', Buffer.from('kept'));
  const { version } = await files().info('/kept');
  const lease = await locks().acquire('/kept', 300);
  await server.crash();
  await server.start();
  assert.equal(Buffer.from(await files().read('/kept')).toString(), 'kept');
  await assert.rejects(locks().acquire('/kept'), ConflictError);
  await files().write('/kept', Buffer.from('more'), { ifVersion: version });
  assert.equal((await locks().renew('/kept', lease.token)).token, lease.token);
  assert.equal(await locks().release('/kept', lease.token), true);
});
