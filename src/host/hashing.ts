/* oxlint-disable unicorn/require-post-message-target-origin -- threads have no origin */
import { Worker } from 'node:worker_threads';
import type { HashAnswer, HashRequest } from './hash-worker.ts';

/** Computes SHA-256 of files in a thread of its own, which starts with the first file and does not keep the process alive. */
export class Hashing {
  readonly #waiting = new Map<number, PromiseWithResolvers<string>>();
  #worker: Worker | null = null;
  #next = 1;

  /** In hexadecimal. Urgent ones go first. Rejects when the file cannot be read, or when the signal says so. */
  async sha256(path: string, urgent: boolean, signal: AbortSignal): Promise<string> {
    signal.throwIfAborted();
    const id = this.#next++;
    const hash = Promise.withResolvers<string>();
    this.#waiting.set(id, hash);
    const worker = this.#start();
    const stop = (): void => {
      hash.reject(signal.reason as Error);
      worker.postMessage({ id, path: null, urgent } satisfies HashRequest);
    };
    signal.addEventListener('abort', stop, { once: true });
    worker.postMessage({ id, path, urgent } satisfies HashRequest);
    try {
      return await hash.promise;
    } finally {
      signal.removeEventListener('abort', stop);
      this.#waiting.delete(id);
    }
  }

  async close(): Promise<void> {
    const worker = this.#worker;
    this.#lose(new Error('the server is stopping'));
    await worker?.terminate();
  }

  #start(): Worker {
    if (this.#worker !== null) return this.#worker;
    const worker = new Worker(new URL('./hash-worker.ts', import.meta.url));
    worker.unref();
    worker.on('message', ({ id, sha256, error }: HashAnswer) => {
      const hash = this.#waiting.get(id);
      if (error === null) hash?.resolve(sha256);
      else hash?.reject(new Error(error));
    });
    worker.on('error', (reason) => this.#lose(reason as Error));
    worker.on('exit', () => this.#lose(new Error('the hashing thread ended')));
    this.#worker = worker;
    return worker;
  }

  #lose(reason: Error): void {
    this.#worker = null;
    for (const hash of this.#waiting.values()) hash.reject(reason);
    this.#waiting.clear();
  }
}
