import { Worker } from 'node:worker_threads';
import type { TransformationRule } from '../../core/guardrails/transformations.ts';
import type { Order, Outcome } from './transform-worker.ts';

/** How long one piece of a body may take; then the thread is ended, and all bodies in it are refused. */
const longestMs = 10_000;

type Unsent = Order extends infer O ? (O extends Order ? Omit<O, 'n'> : never) : never;

/** The thread in which transformations run: started when it is needed first, and again after it was ended. */
class TransformThread {
  #worker: Worker | null = null;
  #waiting = new Map<number, { resolve(outcome: Outcome): void; reject(reason: Error): void }>();
  #next = 1;

  async ask(order: Unsent): Promise<Outcome> {
    const worker = (this.#worker ??= this.#start());
    const n = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
    this.#waiting.set(n, { resolve, reject });
    const timer = setTimeout(() => this.#lose(worker, new Error('a transformation takes too long')), longestMs);
    try {
      worker.postMessage({ ...order, n });
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(n);
    }
  }

  /** For what needs no answer. */
  tell(order: Unsent): void {
    this.#worker?.postMessage({ ...order, n: 0 });
  }

  nextBody(): number {
    return this.#next++;
  }

  #start(): Worker {
    const worker = new Worker(new URL('transform-worker.ts', import.meta.url));
    worker.unref();
    worker.on('message', (outcome: Outcome) => this.#waiting.get(outcome.n)?.resolve(outcome));
    worker.on('error', (reason) => this.#lose(worker, reason as Error));
    worker.on('exit', () => this.#lose(worker, new Error('the thread of transformations has ended')));
    return worker;
  }

  #lose(worker: Worker, reason: Error): void {
    if (this.#worker !== worker) return;
    this.#worker = null;
    void worker.terminate();
    const waiting = this.#waiting;
    this.#waiting = new Map();
    for (const { reject } of waiting.values()) reject(reason);
  }
}

const thread = new TransformThread();

/** One body that is transformed in the thread. */
export class TransformedBody {
  readonly #id = thread.nextBody();
  #opened: Promise<Outcome> | null = null;
  readonly #contentType: string;
  readonly #rules: readonly TransformationRule[];

  constructor(contentType: string, rules: readonly TransformationRule[]) {
    this.#contentType = contentType;
    this.#rules = rules;
  }

  async write(bytes: Buffer): Promise<Outcome> {
    await this.#open();
    return thread.ask({ body: this.#id, op: 'write', bytes });
  }

  async end(): Promise<Outcome> {
    await this.#open();
    return thread.ask({ body: this.#id, op: 'end' });
  }

  close(): void {
    if (this.#opened !== null) thread.tell({ body: this.#id, op: 'close' });
  }

  #open(): Promise<Outcome> {
    this.#opened ??= thread.ask({ body: this.#id, op: 'open', contentType: this.#contentType, rules: this.#rules });
    return this.#opened;
  }
}
