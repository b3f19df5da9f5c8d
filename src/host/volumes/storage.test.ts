import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, describe, test } from 'node:test';
import { archive } from '../../../test/harness/archives.ts';
import { newVolumeId } from '../../core/ids.ts';
import { LocalVolumes } from './storage.ts';

const never = new AbortController().signal;

describe('volumes in a directory', () => {
  const root = mkdtempSync(join(tmpdir(), 'paddock-volumes-'));
  const storage = new LocalVolumes(root);
  after(() => rmSync(root, { recursive: true }));

  const write = async (id: ReturnType<typeof newVolumeId>, path: readonly string[], text: string): Promise<unknown> => {
    await using file = await storage.receive(id, Buffer.from(text), { durable: false });
    return await storage.put(id, path, file);
  };

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

  test('a link that somebody puts into a volume is neither followed nor shown, by no call', async () => {
    const outside = join(root, 'outside');
    writeFileSync(outside, 'secret');
    const id = newVolumeId();
    await storage.create(id);
    await storage.makeDir(id, ['d']);
    symlinkSync(outside, join(root, id, 'files', 'link'));
    symlinkSync(root, join(root, id, 'files', 'd', 'up'));
    await assert.rejects(storage.get(id, ['link']));
    await assert.rejects(storage.info(id, ['link']), { code: 'not_found' });
    await assert.rejects(storage.list(id, ['d', 'up']), { code: 'invalid_argument' });
    await assert.rejects(storage.get(id, ['d', 'up', 'outside']), { code: 'invalid_argument' });
    await assert.rejects(write(id, ['d', 'up', 'outside'], 'overwritten'), { code: 'invalid_argument' });
    await assert.rejects(storage.makeDir(id, ['d', 'up', 'new']), { code: 'invalid_argument' });
    await assert.rejects(storage.remove(id, ['d', 'up', 'outside'], true), { code: 'invalid_argument' });
    await write(id, ['link'], 'in its place');
    assert.deepEqual((await storage.list(id, [])).map(({ name }) => name), ['d', 'link']);
    assert.deepEqual(await storage.usage(id), { bytes: 12, entries: 2 });
    await storage.remove(id, ['d'], true);
    assert.equal(readFileSync(outside, 'utf8'), 'secret');
  });

  test('every write has a version of its own, also within one tick of the clock', async () => {
    const id = newVolumeId();
    await storage.create(id);
    const seen = new Set<string>();
    for (let i = 0; i < 50; i++) {
      await write(id, ['same'], 'x');
      seen.add((await storage.info(id, ['same'])).version);
    }
    assert.equal(seen.size, 50);
  });

  test('what a volume has grown by is what is counted anew', async () => {
    const id = newVolumeId();
    await storage.create(id);
    const total = { bytes: 0, entries: 0 };
    const add = ({ bytes, entries }: { bytes: number; entries: number }): void => void Object.assign(total, { bytes: total.bytes + bytes, entries: total.entries + entries });
    const put = async (path: string[], text: string): Promise<void> => add((await write(id, path, text)) as typeof total);
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
