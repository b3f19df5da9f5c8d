import { StringDecoder } from 'node:string_decoder';
import type { OutputEvent, ProcessExit } from './host.ts';

/** What a command gave when it had ended. Bytes that are no UTF-8 are shown as U+FFFD. */
export interface CommandResult {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
  /** Some output is missing, because there was more than is kept. */
  readonly truncated: boolean;
  readonly pid: number;
}

/** Gathers the output of one process, up to a bound for each stream; what goes beyond is taken and thrown away. */
export class OutputCollector {
  readonly #stdout: BoundedText;
  readonly #stderr: BoundedText;
  #gap = false;
  #exit: ProcessExit | null = null;

  constructor(maxBytesPerStream: number) {
    this.#stdout = new BoundedText(maxBytesPerStream);
    this.#stderr = new BoundedText(maxBytesPerStream);
  }

  take(event: OutputEvent): void {
    switch (event.type) {
      case 'stdout':
      case 'terminal':
        this.#stdout.add(event.data);
        break;
      case 'stderr':
        this.#stderr.add(event.data);
        break;
      case 'gap':
        this.#gap = true;
        break;
      case 'exit':
        this.#exit = event.exit;
        break;
      case 'started':
        break;
    }
  }

  get exit(): ProcessExit | null {
    return this.#exit;
  }

  /** What there is so far. */
  partial(): { readonly stdout: string; readonly stderr: string } {
    return { stdout: this.#stdout.text(), stderr: this.#stderr.text() };
  }

  /** The result of a process that has ended this way. */
  result(pid: number, exit: ProcessExit): CommandResult {
    return Object.freeze({ ...this.partial(), exitCode: exit.exitCode, truncated: this.#gap || this.#stdout.full || this.#stderr.full, pid });
  }
}

class BoundedText {
  readonly #chunks: Buffer[] = [];
  #left: number;
  full = false;

  constructor(maxBytes: number) {
    this.#left = maxBytes;
  }

  add(data: Buffer): void {
    if (this.full) return;
    if (data.length <= this.#left) {
      this.#chunks.push(data);
    } else {
      // A copy, so that the rest of the chunk is not kept with it.
      this.#chunks.push(Buffer.from(data.subarray(0, this.#left)));
      this.full = true;
    }
    this.#left -= Math.min(data.length, this.#left);
  }

  text(): string {
    const decoder = new StringDecoder('utf8');
    const text = decoder.write(Buffer.concat(this.#chunks));
    // A character cut by the bound is left out; one that the program itself left incomplete is shown as U+FFFD.
    return this.full ? text : text + decoder.end();
  }
}
