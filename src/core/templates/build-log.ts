import { StringDecoder } from 'node:string_decoder';
import type { Clock } from '../clock.ts';
import { mostLogLines, type BuildId, type BuildLogStore, type LogLine, type LogStream } from './template.ts';

const flushAfterMs = 100;
const longestLine = 4096;
/** Characters of all lines kept in memory. */
const mostCharacters = 4 * 1024 * 1024;
const pageSize = 500;

/** The log of a build that is under way: written to the store in batches, followed live, and bounded: of too much the newest stays. */
export class BuildLog {
  readonly #store: BuildLogStore;
  readonly #clock: Clock;
  readonly #id: BuildId;
  readonly #lines: LogLine[] = [];
  readonly #unfinished: Readonly<Record<'stdout' | 'stderr', Splitter>> = { stdout: new Splitter(), stderr: new Splitter() };
  #characters = 0;
  #next: number;
  #stored: number;
  #timer: NodeJS.Timeout | null = null;
  #writing: Promise<void> | null = null;
  #ended = false;
  #changed = Promise.withResolvers<void>();

  /** @param written the last line that the store has of it. */
  constructor(store: BuildLogStore, clock: Clock, id: BuildId, written = 0) {
    this.#store = store;
    this.#clock = clock;
    this.#id = id;
    this.#stored = written;
    this.#next = written + 1;
  }

  /** A sentence of the server's own. */
  say(text: string): void {
    for (const line of text.split('\n')) this.#add('system', line);
  }

  /** Output as it comes, cut anywhere. */
  write(stream: 'stdout' | 'stderr', data: Buffer): void {
    for (const line of this.#unfinished[stream].take(data)) this.#add(stream, line);
  }

  /** What came without an end of line is a line as well. */
  closeLines(): void {
    for (const stream of ['stdout', 'stderr'] as const) for (const line of this.#unfinished[stream].rest()) this.#add(stream, line);
  }

  /** Stores what is left; whoever follows comes to the end. */
  async end(): Promise<void> {
    this.closeLines();
    if (this.#timer !== null) clearTimeout(this.#timer);
    for (let tries = 0; tries < 3 && this.#stored < this.#next - 1; tries++) await this.#flush();
    this.#ended = true;
    this.#wake();
  }

  /** Lines after `after`, those to come included. A reader that is too slow misses some, and is told how many. */
  async *follow(after: number, signal: AbortSignal): AsyncGenerator<LogLine, void, undefined> {
    let seen = after;
    const left = Promise.withResolvers<void>();
    const leave = (): void => left.resolve();
    signal.addEventListener('abort', leave, { once: true });
    try {
      while (!signal.aborted) {
        const first = this.#lines[0]?.seq ?? this.#next;
        if (first > seen + 1) {
          yield { seq: first - 1, at: this.#clock.now(), stream: 'system', text: `... ${first - 1 - seen} lines are not kept` };
          seen = Math.max(seen, first - 1);
        }
        const line = this.#lines[seen + 1 - (this.#lines[0]?.seq ?? this.#next)];
        if (line !== undefined) {
          seen = line.seq;
          yield line;
        } else if (this.#ended) return;
        else await Promise.race([this.#changed.promise, left.promise]);
      }
    } finally {
      signal.removeEventListener('abort', leave);
    }
  }

  /** What is kept at this moment. */
  soFar(): readonly LogLine[] {
    return [...this.#lines];
  }

  #add(stream: LogStream, text: string): void {
    if (this.#ended) return;
    this.#lines.push(Object.freeze({ seq: this.#next++, at: this.#clock.now(), stream, text: text.slice(0, longestLine) }));
    this.#characters += Math.min(text.length, longestLine);
    while (this.#lines.length > mostLogLines || this.#characters > mostCharacters) this.#characters -= this.#lines.shift()?.text.length ?? 0;
    this.#wake();
    if (this.#timer !== null) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      void this.#flush();
    }, flushAfterMs);
    this.#timer.unref();
  }

  #wake(): void {
    const { resolve } = this.#changed;
    this.#changed = Promise.withResolvers();
    resolve();
  }

  /** One write at a time. A failure of the store shows elsewhere; what was not written is with the next batch. */
  #flush(): Promise<void> {
    this.#writing ??= (async () => {
      const fresh = this.#lines.filter((line) => line.seq > this.#stored);
      try {
        await this.#store.append(this.#id, fresh, mostLogLines);
        this.#stored = fresh.at(-1)?.seq ?? this.#stored;
      } catch {
        // told by whatever else needs the store
      } finally {
        this.#writing = null;
      }
    })();
    return this.#writing;
  }
}

/** Bytes into lines. Of what a progress bar writes over itself, the last counts. */
class Splitter {
  readonly #decoder = new StringDecoder('utf8');
  #pending = '';

  take(data: Buffer): string[] {
    const pieces = (this.#pending + this.#decoder.write(data)).split('\n');
    this.#pending = pieces.pop() ?? '';
    const lines = pieces.flatMap(cut);
    if (this.#pending.length > longestLine) {
      const long = cut(this.#pending);
      this.#pending = long.pop() ?? '';
      lines.push(...long);
    }
    return lines;
  }

  rest(): string[] {
    const text = this.#pending + this.#decoder.end();
    this.#pending = '';
    return text === '' ? [] : cut(text);
  }
}

function cut(line: string): string[] {
  const shown = line.endsWith('\r') ? line.slice(0, -1) : line;
  const last = shown.slice(shown.lastIndexOf('\r') + 1);
  const parts: string[] = [];
  for (let from = 0; from < last.length || from === 0; from += longestLine) parts.push(last.slice(from, from + longestLine));
  return parts;
}

/** The logs of all builds: of those under way from memory, of others from the store. */
export class BuildLogs {
  readonly #store: BuildLogStore;
  readonly #clock: Clock;
  readonly #open = new Map<BuildId, BuildLog>();

  constructor(store: BuildLogStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  open(id: BuildId): BuildLog {
    const log = new BuildLog(this.#store, this.#clock, id);
    this.#open.set(id, log);
    return log;
  }

  /** Goes on with the log of a build whose server has ended. */
  async reopen(id: BuildId): Promise<BuildLog> {
    let last = 0;
    for await (const { seq } of this.follow(id, AbortSignal.timeout(30_000))) last = seq;
    const log = new BuildLog(this.#store, this.#clock, id, last);
    this.#open.set(id, log);
    return log;
  }

  async close(id: BuildId): Promise<void> {
    await this.#open.get(id)?.end();
    this.#open.delete(id);
  }

  /** From the beginning to the end of the build. */
  async *follow(id: BuildId, signal: AbortSignal): AsyncGenerator<LogLine, void, undefined> {
    const live = this.#open.get(id);
    if (live !== undefined) {
      yield* live.follow(0, signal);
      return;
    }
    for (let after = 0; !signal.aborted; ) {
      const page = await this.#store.read(id, after, pageSize);
      yield* page;
      const last = page.at(-1);
      if (last === undefined || page.length < pageSize) return;
      after = last.seq;
    }
  }

  /** What there is now: the newest lines. `truncated` tells that there were more. */
  async tail(id: BuildId, count: number): Promise<{ readonly lines: readonly LogLine[]; readonly truncated: boolean }> {
    const lines: LogLine[] = [];
    let first = 0;
    const live = this.#open.get(id);
    const source = live === undefined ? this.follow(id, AbortSignal.timeout(30_000)) : live.soFar();
    for await (const line of source) {
      first ||= line.seq;
      lines.push(line);
    }
    return { lines: lines.slice(-count), truncated: lines.length > count || first > 1 };
  }
}
