import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { InvalidArgumentError, NotEnoughSpaceError, NotFoundError, Volumes } from '@declaw/sdk';
import { archive, blocks, contentsOf, digest, tar, type ArchiveEntry } from '../harness/archives.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { volumeStorage } from '../harness/volume-storage.ts';
import { eventually } from '../harness/wait.ts';

const server = serverOfThisFile({ PADDOCK_MAX_VOLUME_MB: '8', PADDOCK_MAX_VOLUMES: '6', ...volumeStorage.settings });
const directories = (): readonly string[] => volumeStorage.kept(server);

test('an archive becomes a volume, is listed, looked at, packed again and deleted', async () => {
  const big = randomBytes(700_000);
  const volume = await Volumes.create('project', archive({ name: './', type: '5' }, { name: 'src/', type: '5' }, { name: 'src/main.sh', data: 'echo hi\n', mode: 0o4755 }, { name: 'deep/er/big', data: big }, { name: 'empty' }));
  assert.match(volume.volumeId, /^vol-[0-9a-f-]{36}$/);
  assert.deepEqual([volume.name, volume.sizeBytes, volume.backend, volume.quotaBytes], ['project', big.length + 8, 'file-granular', 8 * 1_048_576]);
  assert.match(volume.createdAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  assert.deepEqual(await Volumes.get(volume.volumeId), volume);
  const second = await Volumes.empty('second');
  const third = await Volumes.create('third');
  assert.deepEqual([second.sizeBytes, third.sizeBytes], [0, 0]);
  assert.deepEqual((await Volumes.list()).map(({ name }) => name).toSorted(), ['project', 'second', 'third']);
  const packed = await Volumes.download(volume.volumeId);
  assert.deepEqual(contentsOf(packed), { 'deep/': 'dir', 'deep/er/': 'dir', 'deep/er/big': `644 ${digest(big)}`, empty: `644 ${digest('')}`, 'src/': 'dir', 'src/main.sh': `755 ${digest('echo hi\n')}` });
  const again = await Volumes.ingest('again', packed);
  assert.deepEqual(contentsOf(await Volumes.download(again.volumeId)), contentsOf(packed));
  for (const { volumeId } of [volume, second, third, again]) await Volumes.delete(volumeId);
  await assert.rejects(Volumes.get(volume.volumeId), NotFoundError);
  await assert.rejects(Volumes.delete(volume.volumeId), NotFoundError);
  await assert.rejects(Volumes.download(volume.volumeId), NotFoundError);
  assert.deepEqual(directories(), []);
});

test('links and special files are left out and counted, and nothing of them reaches the disk', async () => {
  const volume = await Volumes.ingest('links', archive(
    { name: 'real', data: 'x' }, { name: 'out', type: '2', link: '/etc/passwd' }, { name: 'up', type: '2', link: '../../..' },
    { name: 'hard', type: '1', link: '/etc/shadow' }, { name: 'null', type: '3' }, { name: 'disk', type: '4' }, { name: 'pipe', type: '6' },
  ));
  assert.deepEqual(Object.keys(contentsOf(await Volumes.download(volume.volumeId))), ['real']);
  assert.deepEqual(volume.metadata, { skipped_links_and_special_files: '6', first_skipped: 'out' });
  if (volumeStorage.store === null) assert.deepEqual(readdirSync(join(server.dataDir, 'volumes', volume.volumeId.slice(4), 'fs', 'files')), ['real']);
  await Volumes.delete(volume.volumeId);
});

const tooDeep = `${'d/'.repeat(70)}f`;
const hostile: [name: string, body: Buffer | (() => Buffer), message: RegExp, status?: number][] = [
  ['a name that climbs out', archive({ name: 'fine', data: 'x' }, { name: '../../evil', data: 'x' }), /"\.\.\/\.\.\/evil" has a "\.\." in it/],
  ['a name that climbs out in its middle', archive({ name: 'a/../../evil' }), /a\/\.\.\/\.\.\/evil/],
  ['an absolute name', archive({ name: '/etc/cron.d/evil', data: 'x' }), /"\/etc\/cron\.d\/evil" is absolute/],
  ['a file below a symbolic link of the same archive', archive({ name: 'd', type: '2', link: '/etc' }, { name: 'd/evil', data: 'x' }), /"d\/evil" is below or in the place of a link/],
  ['a file in the place of a link of the same archive', archive({ name: 'd', type: '2', link: '/etc/passwd' }, { name: 'd', data: 'x' }), /"d" is below or in the place of a link/],
  ['a directory in the place of a link of the same archive', archive({ name: 'd', type: '1', link: '/etc' }, { name: 'd/', type: '5' }), /"d\/" is below or in the place of a link/],
  ['a file below a file', archive({ name: 'a', data: 'x' }, { name: 'a/b', data: 'x' }), /"a\/b" is below a file/],
  ['a file in the place of a directory', archive({ name: 'a/b', data: 'x' }, { name: 'a', data: 'x' }), /"a" is a file here and a directory/],
  ['a name with NUL', archive({ name: 'PaxHeader', type: 'x', data: '14 path=a\0bc\n' }, { name: 'short', data: 'x' }), /holds a NUL/],
  ['a name that is too long', archive({ name: 'PaxHeader', type: 'x', data: pax('path', 'n'.repeat(300)) }, { name: 'short', data: 'x' }), /name longer than 255 bytes/],
  ['a path that is too deep', archive({ name: 'PaxHeader', type: 'x', data: pax('path', tooDeep) }, { name: 'short', data: 'x' }), /71 levels deep; the limit is 64/],
  ['a name that is no text', archive({ name: 'PaxHeader', type: 'x', data: Buffer.concat([Buffer.from('10 path='), Buffer.from([0xff]), Buffer.from('\n')]) }, { name: 'short', data: 'x' }), /not UTF-8|cannot be read/],
  ['a sparse file', archive({ name: 'sparse', type: 'S', data: 'x' }), /"sparse" is of a kind/],
  ['no gzip', tar({ name: 'a', data: 'x' }), /it is not gzip/],
  ['a gzip that breaks off', archive({ name: 'a', data: randomBytes(5000) }).subarray(0, 3000), /cannot be read/],
  ['a tar that breaks off', () => gzipSync(Buffer.concat(blocks({ name: 'a', data: 'x'.repeat(4000) })).subarray(0, 2000)), /cannot be read/],
  ['no tar', () => gzipSync(randomBytes(3000)), /cannot be read/],
  ['a negative size', () => { const b = Buffer.concat(blocks({ name: 'a' })); b.fill(0xff, 124, 135); b[135] = 0xfe; return gzipSync(checked(b)); }, /cannot be read/],
  ['a bomb in one file', () => gzipSync(Buffer.concat(blocks({ name: 'bomb', data: Buffer.alloc(9 * 1_048_576) }))), /"bomb" brings the volume above the limit of 8388608 bytes/, 413],
  ['a bomb in many files', () => archive(...Array.from({ length: 9 }, (_, i): ArchiveEntry => ({ name: `b${i}`, data: Buffer.alloc(1_000_000) }))), /"b8" brings the volume above/, 413],
  ['a bomb in a link, which is left out', () => archive({ name: 'link', type: '2', link: 'x', data: Buffer.alloc(9 * 1_048_576) }), /"link" brings the volume above/, 413],
  ['a bomb of the same file again and again', () => archive(...Array.from({ length: 9 }, (): ArchiveEntry => ({ name: 'same', data: Buffer.alloc(1_000_000) }))), /"same" brings the volume above/, 413],
  ['a bomb of zeros behind the end', () => gzipSync(Buffer.concat([tar({ name: 'a' }), Buffer.alloc(12 * 1_048_576)])), /more than 8 MiB between two files/],
  ['a bomb of headers', () => gzipSync(Buffer.concat(Array.from({ length: 30 }, () => blocks({ name: 'PaxHeader', type: 'x', data: pax('comment', 'c'.repeat(1_000_000)) })).flat())), /more than 8 MiB between two files/],
  ['a header that claims to be huge', () => gzipSync(Buffer.concat(blocks({ name: 'PaxHeader', type: 'x', data: 'x', size: 2 ** 31 }))), /cannot be read/],
  ['a size that is a lie', () => gzipSync(Buffer.concat([...blocks({ name: 'a', size: 2 ** 32 }), Buffer.alloc(2000)])), /"a" brings the volume above/, 413],
  ['an archive that is too long by itself', () => Buffer.alloc(9 * 1_048_576, 0x1f), /has 9437184 bytes; the limit of a volume is 8388608/, 413],
];

for (const [name, body, message, status = 400] of hostile) {
  test(`refused, with nothing left behind: ${name}`, async () => {
    const before = directories();
    const kind = status === 413 ? NotEnoughSpaceError : InvalidArgumentError;
    await assert.rejects(Volumes.ingest('hostile', typeof body === 'function' ? body() : body), (error) => error instanceof kind && message.test(error.message) || assert.fail(`${error}`));
    assert.deepEqual(directories(), before);
    assert.equal((await Volumes.list()).length, before.length);
  });
}

test('limits are named: of volumes, of names, of bodies that are none', async () => {
  const made = await Promise.allSettled(Array.from({ length: 9 }, (_, i) => server.call('POST', `/volumes/empty?name=v${i}`)));
  const answers = made.map((each) => (each.status === 'fulfilled' ? each.value : assert.fail('no answer')));
  assert.ok(answers.filter(({ status }) => status === 201).length <= 6);
  assert.match(answers.find(({ status }) => status === 429)?.json.message, /the limit is 6 \(PADDOCK_MAX_VOLUMES\)/);
  for (const { volumeId } of await Volumes.list()) await Volumes.delete(volumeId);
  assert.equal((await server.call('POST', '/volumes/empty')).status, 400);
  assert.equal((await server.call('POST', `/volumes/empty?name=${'n'.repeat(129)}`)).status, 400);
  assert.equal((await server.call('POST', '/volumes/ingest?name=x')).status, 400);
  assert.deepEqual(directories(), []);
});

test('a client that leaves in the middle of an archive leaves nothing behind', async () => {
  const body = archive({ name: 'a', data: randomBytes(3_000_000) });
  const half = new ReadableStream({ start: (controller) => controller.enqueue(body.subarray(0, 1_000_000)) });
  const controller = new AbortController();
  const sent = fetch(`${server.url}/volumes?name=half`, { method: 'POST', headers: { authorization: `Bearer ${server.apiKey}` }, body: half, duplex: 'half', signal: controller.signal } as RequestInit);
  while (directories().length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  controller.abort();
  await assert.rejects(sent);
  for (let i = 0; i < 200 && directories().length > 0; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual([directories(), await Volumes.list()], [[], []]);
});

test('what a crash left is removed, and what was there is still there', async () => {
  const kept = await Volumes.create('kept', archive({ name: 'a', data: 'kept' }));
  const body = new ReadableStream({ start: (controller) => controller.enqueue(archive({ name: 'a', data: randomBytes(100_000) }).subarray(0, 50_000)) });
  const sent = fetch(`${server.url}/volumes?name=half`, { method: 'POST', headers: { authorization: `Bearer ${server.apiKey}` }, body, duplex: 'half' } as RequestInit).catch(() => null);
  while (directories().length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
  await server.crash();
  await sent;
  await server.start();
  await eventually(() => assert.deepEqual(directories(), [kept.volumeId.slice(4)]));
  assert.deepEqual(contentsOf(await Volumes.download(kept.volumeId)), { a: `644 ${digest('kept')}` });
  await Volumes.delete(kept.volumeId);
});

function pax(key: string, value: string): string {
  const body = ` ${key}=${value}\n`;
  let length = body.length + 1;
  while (String(length).length + body.length !== length) length = String(length).length + body.length;
  return `${length}${body}`;
}

/** With its checksum made right again. */
function checked(header: Buffer): Buffer {
  header.fill(' ', 148, 156);
  header.write(`${[...header.subarray(0, 512)].reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}
