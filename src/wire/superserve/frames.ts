import { setTimeout as sleep } from 'node:timers/promises';
import type { RawData, WebSocket } from 'ws';
import { PaddockError } from '../../core/errors.ts';

export interface Frame {
  readonly data: RawData;
  readonly isBinary: boolean;
}

/** Bytes waiting in the inbox above which the client is made to wait. */
const mostWaiting = 1024 * 1024;
/** Milliseconds a client may take to accept what was sent. */
const writeDeadlineMs = 10_000;
/** Bytes of one write to a process. */
const stdinChunk = 256 * 1024;
/** Bytes that may wait for a process: a signal behind them still gets through. */
const mostUnread = 8 * 1024 * 1024;

/** The frames of a socket in their order, one at a time. Holds the client back while nobody takes them. */
export class Inbox {
  readonly #socket: WebSocket;
  readonly #frames: Frame[] = [];
  #bytes = 0;
  #closed = false;
  #wake: (() => void) | null = null;

  constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', (data, isBinary) => {
      if (this.#closed) return;
      this.#frames.push({ data, isBinary });
      this.#bytes += bytesOf(data).length;
      if (this.#bytes > mostWaiting) socket.pause();
      this.#wake?.();
    });
    socket.once('close', () => this.close());
  }

  /** Null when the socket has closed, or nothing came in time; 0 waits for ever. */
  async next(withinMs: number): Promise<Frame | null> {
    const deadline = Date.now() + withinMs;
    for (;;) {
      const frame = this.#frames.shift();
      if (frame !== undefined) {
        this.#bytes -= bytesOf(frame.data).length;
        if (this.#bytes <= mostWaiting) this.#socket.resume();
        return frame;
      }
      if (this.#closed || (withinMs > 0 && Date.now() >= deadline)) return null;
      await this.#arrival(withinMs === 0 ? null : deadline - Date.now());
    }
  }

  /** Nothing is taken any more. */
  close(): void {
    this.#closed = true;
    this.#frames.length = 0;
    this.#wake?.();
  }

  async #arrival(withinMs: number | null): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    const timer = withinMs === null ? undefined : setTimeout(resolve, withinMs);
    await promise;
    clearTimeout(timer);
    this.#wake = null;
  }
}

/** Writes to a process in order, and waits for one that does not read. When the process has ended, what is left is thrown away. */
export class StdinWriter {
  readonly #write: (data: Uint8Array) => Promise<void>;
  readonly #signal: AbortSignal;
  #last: Promise<void> = Promise.resolve();
  #unread = 0;

  constructor(write: (data: Uint8Array) => Promise<void>, signal: AbortSignal) {
    this.#write = write;
    this.#signal = signal;
  }

  /** Resolves when there is room for more. */
  async write(data: Buffer): Promise<void> {
    this.#unread += data.length;
    this.#last = this.#last
      .then(() => this.#all(data))
      .catch(() => {}) // closed or ended: its exit tells
      .finally(() => (this.#unread -= data.length));
    if (this.#unread > mostUnread) await this.#last;
  }

  /** After everything that was written before. */
  end(close: () => Promise<void>): void {
    this.#last = this.#last.then(close).catch(() => {});
  }

  async #all(data: Buffer): Promise<void> {
    for (let from = 0; from < data.length; from += stdinChunk) await this.#patiently(data.subarray(from, from + stdinChunk));
  }

  async #patiently(data: Buffer): Promise<void> {
    for (let pause = 5; ; pause = Math.min(pause * 2, 200)) {
      try {
        return await this.#write(data);
      } catch (error) {
        if (PaddockError.from(error).code !== 'rate_limited') throw error;
        await sleep(pause, undefined, { signal: this.#signal });
      }
    }
  }
}

/** Resolves when the frame is on its way, so that a slow reader slows the process down. One that reads nothing is cut off. */
export async function sendFrame(socket: WebSocket, data: string | Buffer): Promise<void> {
  if (socket.readyState !== socket.OPEN) return;
  const timer = setTimeout(() => socket.terminate(), writeDeadlineMs);
  try {
    await new Promise<void>((resolve) => socket.send(data, () => resolve()));
  } finally {
    clearTimeout(timer);
  }
}

export function bytesOf(data: RawData): Buffer {
  if (Buffer.isBuffer(data)) return data;
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);
}
