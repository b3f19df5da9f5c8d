import { rm } from 'node:fs/promises';
import type { IncomingFile } from '../../core/volume-storage.ts';

/** A file in the `incoming` of its volume. */
export class Incoming implements IncomingFile {
  readonly path: string;
  readonly bytes: number;
  readonly durable: boolean;

  constructor(path: string, bytes: number, durable: boolean) {
    this.path = path;
    this.bytes = bytes;
    this.durable = durable;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { force: true });
  }
}
