import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { readdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { loopsBelow, mountsBelow } from '../../../test/harness/machine.ts';
import { newVolumeId } from '../../core/ids.ts';
import { silentLog } from '../log.ts';
import { runTool } from '../tool.ts';
import { ImageDisks } from './image-disks.ts';

const mib = 1024 * 1024;

describe('volumes on disks of their own', () => {
  const root = realpathSync(mkdtempSync(join(tmpdir(), 'paddock-images-')));
  const options = { bytes: 16 * mib, entries: 500, isKept: (id: string) => id === 'wanted', log: silentLog };
  const all: ImageDisks[] = [];
  const open = (): ImageDisks => {
    const disks = new ImageDisks(root, options);
    all.push(disks);
    return disks;
  };
  after(async () => {
    for (const disks of all) await disks.end();
    rmSync(root, { recursive: true });
  });

  test('take so much and no more, in bytes and in files', async () => {
    const disks = open();
    const id = newVolumeId();
    await disks.make(id);
    using place = await disks.hold(id);
    assert.equal(statSync(place.files).uid, 1000);
    await writeFile(join(place.files, 'fits'), Buffer.alloc(16 * mib));
    await assert.rejects(writeFile(join(place.files, 'does not'), Buffer.alloc(16 * mib)), { code: 'ENOSPC' });
    rmSync(join(place.files, 'does not'));
    const fill = async (): Promise<void> => {
      for (let i = 0; i < 20_000; i++) await writeFile(join(place.files, `f${i}`), '');
    };
    await assert.rejects(fill(), { code: 'ENOSPC' });
    await disks.remove(id);
  });

  test('are found by the next server as they are, mounted once, with what had not arrived removed and what is kept for checkpoints kept', async () => {
    const before = open();
    const id = newVolumeId();
    await before.make(id);
    {
      using place = await before.hold(id);
      writeFileSync(join(place.files, 'a'), 'a');
      writeFileSync(join(place.incoming, 'half'), 'x');
      for (const name of ['wanted', 'not']) mkdirSync(join(place.aside!, name));
    }
    const next = open(); // the one before was killed
    await next.sweep(new Set([id]));
    using place = await next.hold(id);
    assert.deepEqual([await readdir(place.files), await readdir(place.incoming), await readdir(place.aside!)], [['a'], [], ['wanted']]);
    assert.equal(loopsBelow(root).length, 1);
    await next.sweep(new Set());
    await next.end();
    assert.deepEqual([existsSync(join(root, id)), mountsBelow(root), loopsBelow(root)], [false, [], []]);
    await assert.rejects(next.hold(id), { code: 'ENOENT' });
  });

  test('one that an earlier version made as a directory moves into an image at the next start', async () => {
    const disks = open();
    const id = newVolumeId();
    mkdirSync(join(root, id, 'files', 'd'), { recursive: true });
    mkdirSync(join(root, id, 'incoming'));
    writeFileSync(join(root, id, 'files', 'd', 'f'), 'of before');
    symlinkSync('/etc/passwd', join(root, id, 'files', 'link'));
    await disks.sweep(new Set([id]));
    using place = await disks.hold(id);
    assert.equal(readFileSync(join(place.files, 'd', 'f'), 'utf8'), 'of before');
    assert.deepEqual([statSync(join(place.files, 'd')).uid, existsSync(join(root, id, 'files')), existsSync(join(root, id, 'moving'))], [1000, false, false]);
    assert.notEqual(statSync('/etc/passwd').uid, 1000);
    using again = await disks.hold(id);
    assert.equal(again.files, place.files);
    await disks.remove(id);
  });

  test('are unmounted when nobody uses them, and not while somebody else has the file system', async () => {
    const disks = open();
    const [id, held] = [newVolumeId(), newVolumeId()];
    for (const each of [id, held]) await disks.make(each);
    (await disks.hold(id))[Symbol.dispose]();
    const handle = await disks.hold(held);
    writeFileSync(join(handle.files, 'a'), 'a');
    const elsewhere = join(root, 'elsewhere');
    mkdirSync(elsewhere);
    await runTool('mount', ['--bind', handle.files, elsewhere]);
    handle[Symbol.dispose]();
    await disks.close();
    assert.deepEqual(mountsBelow(root).filter((point) => point.endsWith('/fs')), [join(root, held, 'fs')]);
    await runTool('umount', [elsewhere]);
    const next = open();
    for (const each of [id, held]) {
      using place = await next.hold(each);
      assert.deepEqual(await readdir(place.files), each === held ? ['a'] : []);
    }
  });
});
