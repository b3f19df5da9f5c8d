import { readFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { PaddockError } from '../core/errors.ts';

/** Below these a machine takes no further guest: what runs must not suffer for what comes. */
const memoryFloorBytes = 512 * 1024 * 1024;
const diskFloorBytes = 2 * 1024 * 1024 * 1024;

/** Whether this machine can take another guest. */
export class Room {
  readonly #dataDir: string;
  /** Frees memory that is held only for convenience; false when there is none. */
  readonly #relieve: () => Promise<boolean>;
  /** For guests on their way, whose pages are not in memory yet. */
  #promised = 0;

  constructor(dataDir: string, relieve: () => Promise<boolean>) {
    this.#dataDir = dataDir;
    this.#relieve = relieve;
  }

  /** Throws `no_capacity` when the machine has no memory for this much more, or its disk is nearly full. */
  async assert(memoryBytes: number): Promise<void> {
    for (let available = this.#available(); available < memoryBytes + memoryFloorBytes; available = this.#available()) {
      if (await this.#relieve()) continue;
      const wish = memoryBytes === 0 ? '' : `, and ${toMb(memoryBytes)} MiB are needed`;
      throw new PaddockError('no_capacity', `This machine has ${toMb(available)} MiB of memory left${wish}; ${toMb(memoryFloorBytes)} MiB are kept free: end some sandboxes and try again.`, { retryAfterSeconds: 5 });
    }
    const { bavail, bsize } = await statfs(this.#dataDir);
    if (bavail * bsize < diskFloorBytes) {
      throw new PaddockError('no_capacity', `The disk of the data directory has ${toMb(bavail * bsize)} MiB left, below the ${toMb(diskFloorBytes)} MiB it keeps free: a sandbox needs room to write.`, { retryAfterSeconds: 30 });
    }
  }

  /** The same, and the memory counts as taken until the guest that is to have it holds it. */
  async reserve(memoryBytes: number): Promise<Disposable> {
    await this.assert(memoryBytes);
    this.#promised += memoryBytes;
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (held) this.#promised -= memoryBytes;
        held = false;
      },
    };
  }

  /** Memory that is so short that what is held only for convenience should go. */
  isTight(): boolean {
    return this.#available() < memoryFloorBytes;
  }

  #available(): number {
    return memoryAvailable() - this.#promised;
  }
}

/**
 * Throws `no_space` when this much more would leave too little on the disk of a directory.
 *
 * @param what Is to be kept there; the message begins with it.
 */
export async function assertDiskRoom(dir: string, bytes: number, what: string): Promise<void> {
  const { bavail, bsize } = await statfs(dir);
  const free = bavail * bsize;
  if (free >= bytes + diskFloorBytes) return;
  const size = bytes === 0 ? '' : ` takes ${toMb(bytes)} MiB, and`;
  throw new PaddockError('no_space', `${what}${size === '' ? ' cannot be kept:' : size} the disk of the server has ${toMb(free)} MiB left and keeps ${toMb(diskFloorBytes)} MiB free; remove snapshots, volumes or templates that are not needed.`);
}

function memoryAvailable(): number {
  const match = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'));
  return match === null ? Number.POSITIVE_INFINITY : Number(match[1]) * 1024;
}

function toMb(bytes: number): number {
  return Math.floor(bytes / 1024 / 1024);
}
