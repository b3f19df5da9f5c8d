import type { GuardrailName, Unscanned } from '../../core/guardrails/finding.ts';
import { binaryReason } from '../scanners/pii/exchange.ts';
import type { PartFilter } from '../scanners/multipart.ts';
import { textFilter } from '../scanners/text-filter.ts';
import { type Syntax, viewOf } from '../scanners/view.ts';
import { readableOnly } from './content-coding.ts';
import { Guard, mostHeld, type Way, wordsOf } from './guard.ts';
import { type BodyFilter, Refusal, type RequestHead } from './stage.ts';

/** A score from 0 to 1 with what weighed most, or why there is none. */
export type Judgement = { readonly score: number; readonly label: string | null } | { readonly unscanned: string };

export type Judge = (text: string) => Judgement | Promise<Judgement>;

export interface ScoreRules {
  readonly action: 'block' | 'log_only';
  /** A score of this or more is too high. */
  readonly threshold: number;
  /** Whether paths and queries, and answers, are judged as well as bodies of requests. */
  readonly everything: boolean;
}

/** Bytes of a body that are judged at a time, with characters of what came before. */
const pieceSize = 16 << 10;
const overlap = 1024;
/** A query shorter than this says nothing. */
const shortestTarget = 16;

/** Judges texts as a whole; a message that may be blocked waits until it was judged. */
export class ScoreStage extends Guard {
  readonly #name: GuardrailName;
  readonly #judge: Judge;
  readonly #rules: ScoreRules;
  readonly #highest = new Map<Way, { readonly score: number; readonly label: string | null }>();

  constructor(name: GuardrailName, judge: Judge, rules: ScoreRules, unscanned: Unscanned) {
    super(name, rules.action === 'log_only' ? 'pass' : unscanned);
    this.#name = name;
    this.#judge = judge;
    this.#rules = rules;
  }

  async request(head: RequestHead): Promise<RequestHead> {
    if (!this.#rules.everything) return head;
    if (head.target.length >= shortestTarget) await this.#weigh('outbound', viewOf(Buffer.from(head.target, 'latin1'), 'form').text);
    return { ...head, headers: readableOnly(head.headers) };
  }

  protected tally(direction: Way): ReturnType<Guard['tally']> {
    const highest = this.#highest.get(direction);
    if (highest === undefined || highest.score < this.#rules.threshold) return null;
    return { outcome: 'found', blocked: false, counts: { [highest.label ?? this.#name]: 1 }, score: highest.score };
  }

  protected outboundBody(contentType: string): BodyFilter {
    return this.#body('outbound', contentType, this.#rules.action === 'block');
  }

  protected override inboundBody(contentType: string): BodyFilter | null {
    if (!this.#rules.everything) return null;
    // A stream of events is read as it comes: it ends where something is found.
    const streams = contentType.toLowerCase().startsWith('text/event-stream');
    return this.#body('inbound', contentType, this.#rules.action === 'block' && !streams);
  }

  #body(direction: Way, contentType: string, holds: boolean): BodyFilter {
    return new JudgedBody(contentType, holds, {
      weigh: (text) => this.#weigh(direction, text),
      cannotScan: (why) => this.cannotScan(direction, why),
      binary: () => this.passUnscanned(direction, binaryReason),
      refusalOf: (reason) => this.refusalOf(direction, reason),
    });
  }

  async #weigh(direction: Way, text: string): Promise<void> {
    let judged: Judgement;
    try {
      judged = await this.#judge(text);
    } catch (reason) {
      judged = { unscanned: `the scanner failed: ${(reason as Error).message.slice(0, 200)}` };
    }
    if ('unscanned' in judged) return this.cannotScan(direction, judged.unscanned);
    if (judged.score > (this.#highest.get(direction)?.score ?? -1)) this.#highest.set(direction, judged);
    const { action, threshold } = this.#rules;
    if (action === 'log_only' || judged.score < threshold) return undefined;
    this.block(direction);
    const what = direction === 'outbound' ? 'request' : 'answer';
    throw new Refusal(403, `${this.#name}_found`, `The ${what} was judged to hold ${wordsOf(this.#name)} (${judged.score.toFixed(3)}${judged.label === null || judged.label === 'injection' ? '' : `, ${judged.label}`}); the policy of this sandbox lets pass what is below ${threshold}.`);
  }
}

interface JudgedBodyOptions {
  /** @throws Refusal */
  weigh(text: string): Promise<void>;
  cannotScan(why: string): void;
  binary(): void;
  refusalOf(reason: unknown): unknown;
}

class JudgedBody implements BodyFilter {
  readonly changes = false;
  readonly #options: JudgedBodyOptions;
  readonly #body: PartFilter;
  readonly #texts: string[] = [];
  #holds: boolean;
  #text = false;
  #size = 0;
  #over = false;

  constructor(contentType: string, holds: boolean, options: JudgedBodyOptions) {
    this.#options = options;
    this.#holds = holds;
    this.#body = textFilter(contentType, {
      make: (syntax) => {
        this.#text = true;
        return new Tap(syntax, (text) => void this.#texts.push(text));
      },
      unreadable: (why) => options.cannotScan(why),
      binary: () => {
        options.binary();
        // What is not text as a whole has nothing to wait for; parts of a form are followed by others.
        if (!this.#text && !contentType.toLowerCase().startsWith('multipart/')) this.#holds = false;
      },
    });
  }

  get holds(): boolean {
    return this.#holds;
  }

  async push(chunk: Buffer): Promise<Buffer> {
    if (this.#over) return chunk;
    this.#size += chunk.length;
    const out = this.#through(() => this.#body.write(chunk));
    if (this.#size > mostHeld && this.#text) {
      this.#options.cannotScan(`it has more than ${mostHeld} bytes`);
      this.#over = true;
      this.#holds = false;
      this.#texts.length = 0;
      return Buffer.concat([out, this.#through(() => this.#body.end())]);
    }
    await this.#weighed();
    return out;
  }

  async end(): Promise<Buffer> {
    if (this.#over) return Buffer.alloc(0);
    const out = this.#through(() => this.#body.end());
    await this.#weighed();
    return out;
  }

  #through(work: () => Buffer): Buffer {
    try {
      return work();
    } catch (reason) {
      throw this.#options.refusalOf(reason);
    }
  }

  async #weighed(): Promise<void> {
    for (let text = this.#texts.shift(); text !== undefined; text = this.#texts.shift()) await this.#options.weigh(text);
  }
}

/** Gives text on as it comes, and tells what it says in pieces that overlap. */
class Tap implements PartFilter {
  readonly #syntax: Syntax;
  readonly #tell: (text: string) => void;
  #waiting: Buffer[] = [];
  #size = 0;
  #before = '';

  constructor(syntax: Syntax, tell: (text: string) => void) {
    this.#syntax = syntax;
    this.#tell = tell;
  }

  write(chunk: Buffer): Buffer {
    for (let from = 0; from < chunk.length; ) {
      const piece = chunk.subarray(from, from + pieceSize - this.#size);
      this.#waiting.push(Buffer.from(piece));
      this.#size += piece.length;
      from += piece.length;
      if (this.#size >= pieceSize) this.#take();
    }
    return chunk;
  }

  end(): Buffer {
    if (this.#size > 0) this.#take();
    return Buffer.alloc(0);
  }

  #take(): void {
    const { text } = viewOf(Buffer.concat(this.#waiting), this.#syntax);
    this.#waiting = [];
    this.#size = 0;
    this.#tell(this.#before + text);
    this.#before = (this.#before + text).slice(-overlap);
  }
}
