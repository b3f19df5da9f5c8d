import { existsSync } from 'node:fs';
import { readFile, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { HostLog } from '../log.ts';
import { runTool } from '../tool.ts';

export interface DiskGuardOptions {
  /** Where images of volumes lie. */
  readonly directory: string;
  /** Below so many free bytes volumes take nothing more, and above so many they do again. */
  readonly stopBelow: number;
  readonly goOnAbove: number;
  /** Where the file systems of volumes are mounted at this moment. */
  readonly mounted: () => readonly string[];
  readonly log: HostLog;
}

const ballast = 'ballast';
const everyMs = 250;
/** What a file system needs of its own for the ballast. */
const spareBlocks = 64;

/**
 * Images of volumes are sparse: together they may promise more than the disk has. When that runs short, the free space of every mounted
 * volume is claimed by a file in it that takes no space outside: whoever writes finds the volume full, and not its disk failing under it.
 */
export class DiskGuard {
  readonly #options: DiskGuardOptions;
  readonly #timer: NodeJS.Timeout;
  #looking: Promise<void> = Promise.resolve();
  #busy = false;
  #stopped = false;

  constructor(options: DiskGuardOptions) {
    this.#options = options;
    this.#timer = setInterval(() => {
      if (!this.#busy) this.#looking = this.#look();
    }, everyMs);
    this.#timer.unref();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
  }

  async #look(): Promise<void> {
    const { mounted, stopBelow, goOnAbove, log } = this.#options;
    this.#busy = true;
    try {
      const points = mounted();
      if (points.length === 0) return;
      const free = await this.#free();
      if (free < stopBelow) {
        if (!this.#stopped) log.warn({ freeMiB: Math.floor(free / 1_048_576) }, 'the disk is nearly full: volumes take nothing more until there is space again');
        this.#stopped = true;
        for (const point of points) await claim(point);
      } else if (free > goOnAbove) {
        for (const point of points) if (existsSync(join(point, ballast))) await rm(join(point, ballast));
        this.#stopped = false;
      }
    } catch (reason) {
      log.error({ err: reason }, 'the space for volumes cannot be watched');
    } finally {
      this.#busy = false;
    }
  }

  /** What waits in memory to be written takes its space only then. */
  async #free(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#options.directory);
    const waiting = /^Dirty:\s+(\d+) kB$/m.exec(await readFile('/proc/meminfo', 'utf8'))?.[1] ?? '0';
    return bavail * bsize - Number(waiting) * 1024;
  }
}

async function claim(point: string): Promise<void> {
  const { bavail, bsize } = await statfs(point);
  if (bavail <= spareBlocks * 2) return;
  const name = join(point, ballast);
  const claimed = await stat(name).then(({ size }) => size, () => 0);
  await runTool('fallocate', ['--length', String(claimed + (bavail - spareBlocks) * bsize), name]);
}
