import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, describe, test } from 'node:test';
import { archive } from '../../../test/harness/archives.ts';
import { TestObjectStore } from '../../../test/harness/object-store.ts';
import { newVolumeId, type VolumeId } from '../../core/ids.ts';
import type { VolumeStorage, VolumeUsage } from '../../core/volume-storage.ts';
import { silentLog } from '../log.ts';
import { openObjectVolumes } from './objects/open.ts';
import { LocalVolumes } from './storage.ts';

async function write(storage: VolumeStorage, id: VolumeId, path: readonly string[], text: string): Promise<VolumeUsage> {
  await using file = await storage.receive(id, Buffer.from(text), { durable: true });
  return await storage.put(id, path, file);
}

const never = new AbortController().signal;

const root = mkdtempSync(join(tmpdir(), 'paddock-volumes-'));
const local = new LocalVolumes(root);
const store = await TestObjectStore.open();
const inStore = await openObjectVolumes(store.options, 'p/', 'this test', silentLog);
after(async () => {
  rmSync(root, { recursive: true });
  await inStore.close();
  await store[Symbol.asyncDispose]();
});

for (const [where, storage] of [['in a directory', local], ['in an object store', inStore]] as const) describe(`volumes ${where}`, () => {
  test('an archive with too many entries is refused, whether they are files or the directories above them', async () => {
    const limit = { bytes: 1000, entries: 3 };
    for (const entries of [[{ name: 'a' }, { name: 'b' }, { name: 'c' }, { name: 'd' }], [{ name: 'a/b/c/d' }], [{ name: 'd/', type: '5' }, { name: 'd/', type: '5' }, { name: 'd/', type: '5' }, { name: 'd/', type: '5' }]]) {
      const id = newVolumeId();
      await storage.create(id);
      await assert.rejects(storage.unpack(id, Readable.from([archive(...entries)]), limit, never), { code: 'too_large' });
    }
  });

  test('a bomb of headers, each of them allowed, is refused by what it comes to', async () => {
    const id = newVolumeId();
    await storage.create(id);
    const header = `${1_000_000} comment=${'c'.repeat(1_000_000 - 17)}\n`;
    const entries = Array.from({ length: 12 }, (_, i) => [{ name: 'PaxHeader', type: 'x', data: header }, { name: `f${i}` }]).flat();
    await assert.rejects(storage.unpack(id, Readable.from([archive(...entries)]), { bytes: 1000, entries: 100 }, never), { code: 'too_large', message: /headers included/ });
  });

  test('every write has a version of its own, also within one tick of the clock', async () => {
    const id = newVolumeId();
    await storage.create(id);
    const seen = new Set<string>();
    for (let i = 0; i < 50; i++) {
      await write(storage, id, ['same'], 'x');
      seen.add((await storage.info(id, ['same'])).version);
    }
    assert.equal(seen.size, 50);
  });

  test('what cannot be done is refused the same way, and changes nothing', async () => {
    const id = newVolumeId();
    await storage.create(id);
    await write(storage, id, ['d', 'file'], 'x');
    await write(storage, id, ['e', 'f'], 'y');
    const before = [await storage.usage(id), await storage.list(id, []), await storage.list(id, ['d'])];
    const refused: [work: () => Promise<unknown>, code: string][] = [
      [() => write(storage, id, ['d'], 'z'), 'invalid_argument'],
      [() => write(storage, id, ['d', 'file', 'below'], 'z'), 'invalid_argument'],
      [() => write(storage, id, [], 'z'), 'invalid_argument'],
      [() => storage.get(id, ['d']), 'invalid_argument'],
      [() => storage.get(id, ['none']), 'not_found'],
      [() => storage.info(id, ['d', 'none']), 'not_found'],
      [() => storage.info(id, ['d', 'file', 'none']), 'invalid_argument'],
      [() => storage.list(id, ['d', 'file']), 'invalid_argument'],
      [() => storage.list(id, ['none']), 'not_found'],
      [() => storage.makeDir(id, ['d', 'file']), 'invalid_argument'],
      [() => storage.makeDir(id, ['d', 'file', 'dir']), 'invalid_argument'],
      [() => storage.remove(id, ['d'], false), 'conflict'],
      [() => storage.remove(id, [], true), 'invalid_argument'],
      [() => storage.remove(id, ['none'], true), 'not_found'],
      [() => storage.rename(id, ['none'], ['x']), 'not_found'],
      [() => storage.rename(id, ['d', 'file'], ['e']), 'invalid_argument'],
      [() => storage.rename(id, ['d'], ['e', 'f']), 'invalid_argument'],
      [() => storage.rename(id, ['d'], ['e']), 'conflict'],
      [() => storage.rename(id, ['d'], ['d', 'inner']), 'invalid_argument'],
      [() => storage.rename(id, ['d'], [...Array.from({ length: 63 }, (_, i) => `n${i}`), 'last']), 'invalid_argument'],
      [() => storage.usage(newVolumeId()), 'not_found'],
      [() => storage.receive(newVolumeId(), Buffer.from('x'), { durable: true }), 'not_found'],
    ];
    for (const [i, [work, code]] of refused.entries()) await assert.rejects(work(), { code }, `the ${i}th`);
    assert.deepEqual([await storage.usage(id), await storage.list(id, []), await storage.list(id, ['d'])], before);
  });

  test('what a volume has grown by is what is counted anew', async () => {
    const id = newVolumeId();
    await storage.create(id);
    const total = { bytes: 0, entries: 0 };
    const add = ({ bytes, entries }: { bytes: number; entries: number }): void => void Object.assign(total, { bytes: total.bytes + bytes, entries: total.entries + entries });
    const put = async (path: string[], text: string): Promise<void> => add((await write(storage, id, path, text)) as typeof total);
    await put(['a', 'b', 'c'], 'hello');
    await put(['a', 'b', 'c'], 'hi');
    await put(['a', 'd'], '1234');
    add(await storage.makeDir(id, ['x', 'y']));
    add(await storage.rename(id, ['a', 'd'], ['a', 'b', 'c']));
    add(await storage.rename(id, ['a', 'b'], ['n', 'e', 'w']));
    add(await storage.rename(id, ['n', 'e', 'w', 'c'], ['n', 'e', 'w', 'c']));
    assert.deepEqual(total, await storage.usage(id));
    await assert.rejects(storage.remove(id, ['n'], false), { code: 'conflict' });
    await assert.rejects(storage.rename(id, ['n'], ['n', 'e', 'below']), { code: 'invalid_argument' });
    add(await storage.remove(id, ['n'], true));
    add(await storage.remove(id, ['x', 'y'], false));
    assert.deepEqual(total, await storage.usage(id));
  });
});

test('a link that somebody puts into a volume is neither followed nor shown, by no call', async () => {
  const outside = join(root, 'outside');
  writeFileSync(outside, 'secret');
  const id = newVolumeId();
  await local.create(id);
  await local.makeDir(id, ['d']);
  symlinkSync(outside, join(root, id, 'files', 'link'));
  symlinkSync(root, join(root, id, 'files', 'd', 'up'));
  await assert.rejects(local.get(id, ['link']));
  await assert.rejects(local.info(id, ['link']), { code: 'not_found' });
  await assert.rejects(local.list(id, ['d', 'up']), { code: 'invalid_argument' });
  await assert.rejects(local.get(id, ['d', 'up', 'outside']), { code: 'invalid_argument' });
  await assert.rejects(write(local, id, ['d', 'up', 'outside'], 'overwritten'), { code: 'invalid_argument' });
  await assert.rejects(local.makeDir(id, ['d', 'up', 'new']), { code: 'invalid_argument' });
  await assert.rejects(local.remove(id, ['d', 'up', 'outside'], true), { code: 'invalid_argument' });
  await write(local, id, ['link'], 'in its place');
  assert.deepEqual((await local.list(id, [])).map(({ name }) => name), ['d', 'link']);
  assert.deepEqual(await local.usage(id), { bytes: 12, entries: 2 });
  await local.remove(id, ['d'], true);
  assert.equal(readFileSync(outside, 'utf8'), 'secret');
});
