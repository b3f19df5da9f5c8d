import type { Readable } from 'node:stream';
import type { BodyFilter } from '../pipeline/stage.ts';
import type { BodySink } from './front.ts';
import { HeldBody } from './held-body.ts';

export interface FilteredBodyOptions {
  readonly filters: readonly BodyFilter[];
  /** Is told the size of every piece as it came. */
  readonly count: (size: number) => void;
  /** Says what it means that the source has failed. */
  readonly fault?: (reason: unknown) => unknown;
}

/** A body on its way through filters, in their order: held back as long as one of them asks for it, and then as fast as it is taken. */
export class FilteredBody {
  readonly #pieces: AsyncIterator<Buffer>;
  readonly #options: FilteredBodyOptions;
  readonly #held = new HeldBody();
  #ended = false;

  constructor(source: Readable, options: FilteredBodyOptions) {
    this.#pieces = source.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
    this.#options = options;
  }

  /** Its length, when all of it is here. */
  get length(): number | null {
    return this.#ended ? this.#held.size : null;
  }

  get #waits(): boolean {
    return this.#options.filters.some((filter) => filter.holds === true);
  }

  /**
   * Takes in so many bytes, and on as long as a filter holds the body back.
   *
   * @throws What a filter throws, or Error when the source ends early.
   */
  async gather(most: number): Promise<void> {
    while (!this.#ended && (this.#held.size < most || this.#waits)) await this.#held.add(await this.#next());
  }

  /** @throws What a filter throws, or Error when either side ends early. */
  async passTo(sink: BodySink): Promise<void> {
    const pass = async (piece: Buffer): Promise<void> => {
      if (piece.length > 0 && !sink.write(piece)) await sink.drained();
    };
    for await (const piece of this.#held.taken()) await pass(piece);
    while (!this.#ended) await pass(await this.#next());
  }

  /** Gives up what is held, and tells the filters. */
  close(): Promise<void> {
    for (const filter of this.#options.filters) filter.close?.();
    return this.#held.close();
  }

  async #next(): Promise<Buffer> {
    const { filters, count, fault } = this.#options;
    let piece: IteratorResult<Buffer>;
    try {
      piece = await this.#pieces.next();
    } catch (reason) {
      throw fault?.(reason) ?? reason;
    }
    if (piece.done === true) {
      this.#ended = true;
      return restOf(filters);
    }
    count(piece.value.length);
    let passed = piece.value;
    for (const filter of filters) {
      const next = filter.push(passed);
      passed = Buffer.isBuffer(next) ? next : await next;
    }
    return passed;
  }
}

/** What the filters have held back; each gets what the ones before it gave up last. */
async function restOf(filters: readonly BodyFilter[]): Promise<Buffer> {
  let rest: Buffer = Buffer.alloc(0);
  for (const filter of filters) {
    const pushed = rest.length > 0 ? await filter.push(rest) : rest;
    rest = Buffer.concat([pushed, await filter.end()]);
  }
  return rest;
}
