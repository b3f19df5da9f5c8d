import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Refusal } from '../pipeline/stage.ts';

/** Of one body; what is more lies in a file. */
const mostInMemory = 1 << 20;
/** Of all bodies together. */
const mostInAllMemory = 64 << 20;
const mostInFiles = 1 << 30;
const readSize = 64 << 10;

let inAllMemory = 0;
let inFiles = 0;
let directory = tmpdir();

/** Where large bodies lie while they wait; a directory that only this process reads. */
export function holdBodiesIn(path: string): void {
  directory = path;
}

/** A body that waits until it is known whether it may go on: in memory while it is small, then in a file without a name. */
export class HeldBody {
  readonly #pieces: Buffer[] = [];
  #memory = 0;
  #file: FileHandle | null = null;
  #filed = 0;

  get size(): number {
    return this.#memory + this.#filed;
  }

  /** @throws Refusal when too much of all sandboxes waits already. */
  async add(piece: Buffer): Promise<void> {
    if (piece.length === 0) return;
    if (this.#file === null && this.#memory + piece.length <= mostInMemory && inAllMemory + piece.length <= mostInAllMemory) {
      this.#pieces.push(piece);
      this.#memory += piece.length;
      inAllMemory += piece.length;
      return;
    }
    if (inFiles + piece.length > mostInFiles) throw new Refusal(503, 'too_much_held', 'Too many large bodies are waiting to be looked into; try again in a moment.');
    inFiles += piece.length;
    this.#filed += piece.length;
    this.#file ??= await nameless();
    await this.#file.write(piece);
  }

  /** What was added, in its order. Can be read once. */
  async *taken(): AsyncGenerator<Buffer> {
    while (this.#pieces.length > 0) {
      const piece = this.#pieces.shift()!;
      this.#memory -= piece.length;
      inAllMemory -= piece.length;
      yield piece;
    }
    for (let at = 0; this.#file !== null && at < this.#filed; ) {
      const { bytesRead, buffer } = await this.#file.read(Buffer.allocUnsafe(readSize), 0, readSize, at);
      if (bytesRead === 0) throw new Error('a body that was held back cannot be read');
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
    await this.close();
  }

  async close(): Promise<void> {
    inAllMemory -= this.#memory;
    inFiles -= this.#filed;
    this.#memory = this.#filed = this.#pieces.length = 0;
    const file = this.#file;
    this.#file = null;
    await file?.close();
  }
}

async function nameless(): Promise<FileHandle> {
  const path = join(directory, `.held-${randomUUID()}`);
  const file = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  await unlink(path);
  return file;
}
