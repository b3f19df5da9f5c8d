/* oxlint-disable unicorn/require-post-message-target-origin -- threads have no origin */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { parentPort } from 'node:worker_threads';

/** A file to be hashed; null takes an earlier request back. */
export interface HashRequest {
  readonly id: number;
  readonly path: string | null;
  /** Somebody waits for it: the others stand back. */
  readonly urgent: boolean;
}

export interface HashAnswer {
  readonly id: number;
  readonly sha256: string;
  readonly error: string | null;
}

const pieceBytes = 1024 * 1024;
const wanted = new Set<number>();
/** One file after the other: together they would take as long, and each as long as all. */
let urgentQueue: Promise<void> = Promise.resolve();
let queue: Promise<void> = Promise.resolve();

async function hash({ id, urgent }: HashRequest, path: string): Promise<string> {
  const file = await open(path, 'r');
  try {
    const sum = createHash('sha256');
    const buffer = Buffer.allocUnsafe(pieceBytes);
    for (;;) {
      if (!urgent) await urgentQueue;
      if (!wanted.has(id)) throw new Error('not wanted any more');
      const { bytesRead } = await file.read(buffer, 0, pieceBytes, null);
      if (bytesRead === 0) return sum.digest('hex');
      sum.update(buffer.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
}

async function answer(request: HashRequest, path: string): Promise<void> {
  let said: HashAnswer;
  try {
    said = { id: request.id, sha256: await hash(request, path), error: null };
  } catch (reason) {
    said = { id: request.id, sha256: '', error: (reason as Error).message };
  }
  wanted.delete(request.id);
  parentPort?.postMessage(said);
}

parentPort?.on('message', (request: HashRequest) => {
  const { id, path, urgent } = request;
  if (path === null) {
    wanted.delete(id);
    return;
  }
  wanted.add(id);
  if (urgent) urgentQueue = urgentQueue.then(() => answer(request, path));
  else queue = queue.then(() => answer(request, path));
});
