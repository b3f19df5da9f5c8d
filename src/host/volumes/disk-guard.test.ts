import assert from 'node:assert/strict';
import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { open, rm, statfs, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { newVolumeId } from '../../core/ids.ts';
import { silentLog } from '../log.ts';
import { unmountAt } from '../mounts.ts';
import { runTool } from '../tool.ts';
import { ImageDisks } from './image-disks.ts';

const mib = 1024 * 1024;

test('volumes that promise more than the disk has are full before the disk is, and take more when there is space again', async () => {
  const base = realpathSync(mkdtempSync(join(tmpdir(), 'paddock-guard-')));
  const disk = join(base, 'disk');
  try {
    await writeFile(join(base, 'small.img'), '');
    await truncate(join(base, 'small.img'), 1500 * mib);
    await runTool('mkfs.ext4', ['-q', '-F', '-m', '0', join(base, 'small.img')]);
    await runTool('mkdir', [disk]);
    await runTool('mount', ['-o', 'loop', join(base, 'small.img'), disk]);
    const filler = join(disk, 'somebody else');
    await runTool('fallocate', ['-l', String(500 * mib), filler]);
    const disks = new ImageDisks(disk, { bytes: 4096 * mib, entries: 1000, stopBelow: 500 * mib, goOnAbove: 700 * mib, isKept: () => false, log: silentLog });
    const id = newVolumeId();
    await disks.make(id);
    {
      using place = await disks.hold(id);
      const file = await open(join(place.files, 'big'), 'w');
      const chunk = Buffer.alloc(8 * mib, 1);
      const write = async (): Promise<void> => {
        for (let written = 0; written < 4096; written += 8) {
          await file.write(chunk);
          if (written % 64 === 0) await file.datasync();
        }
      };
      await assert.rejects(write(), { code: 'ENOSPC' });
      await file.sync();
      const { bavail, bsize } = await statfs(disk);
      assert.ok(bavail * bsize > 50 * mib, `${(bavail * bsize) / mib} MiB are left`);
      await rm(filler);
      for (let attempt = 0; ; attempt++) {
        const written = await file.write(chunk).then(() => true, () => false);
        if (written) break;
        assert.ok(attempt < 100, 'the volume stays full');
        await sleep(50);
      }
      await file.close();
    }
    await disks.close();
  } finally {
    await unmountAt(base);
    rmSync(base, { recursive: true, force: true });
  }
});
