import { setImmediate as nextTurn } from 'node:timers/promises';
import type { GuardrailFinding, GuardrailName, Unscanned } from '../../core/guardrails/finding.ts';
import type { PartFilter } from '../scanners/multipart.ts';
import { MalformedMultipart } from '../scanners/multipart.ts';
import { PiiRefused } from '../scanners/pii/exchange.ts';
import { TextRefused } from '../scanners/text-guards.ts';
import { TransformationRefused } from '../scanners/transformations.ts';
import { codingsOf } from './content-coding.ts';
import { type BodyFilter, Refusal, type RequestHead, type ResponseHead, type Stage } from './stage.ts';

export type Way = GuardrailFinding['direction'];

interface Tally {
  outcome: GuardrailFinding['outcome'];
  blocked: boolean;
  counts: Readonly<Record<string, number>>;
  score: number | null;
}

/** What guardrails have in common: what they could not look into, and what they have to tell. */
export abstract class Guard implements Stage {
  readonly #name: GuardrailName;
  /** Of one that only looks, everything passes. */
  readonly #unscanned: Unscanned;
  readonly #notScanned = new Map<string, GuardrailFinding>();
  readonly #blocked = new Set<Way>();
  #packed = false;

  constructor(name: GuardrailName, unscanned: Unscanned) {
    this.#name = name;
    this.#unscanned = unscanned;
  }

  /** What was found, for the record. */
  get findings(): readonly GuardrailFinding[] {
    const found = (['outbound', 'inbound'] as const).flatMap((direction): GuardrailFinding[] => {
      const tally = this.tally(direction);
      if (tally === null) return [];
      const blocked = this.#blocked.has(direction);
      return [{ guardrail: this.#name, direction, ...tally, ...(blocked ? { outcome: 'blocked' as const, blocked } : {}), reason: null }];
    });
    return [...found, ...this.#notScanned.values()];
  }

  unpacks(contentEncoding: string): boolean {
    try {
      return codingsOf(contentEncoding).length > 0;
    } catch {
      this.#packed = true;
      this.cannotScan('outbound', 'it is packed in a way that cannot be undone');
      return false;
    }
  }

  requestBody(head: RequestHead): BodyFilter | null {
    return this.#packed ? null : this.outboundBody(contentTypeOf(head.headers));
  }

  responseBody(head: ResponseHead): BodyFilter | null {
    return this.inboundBody(contentTypeOf(head.headers));
  }

  /** What is no HTTP any more is not looked into. */
  upgraded(head: ResponseHead): ResponseHead {
    if (head.status === 101) this.cannotScan('outbound', 'it is a WebSocket');
    else this.cannotScan('inbound', 'it answers a request for a WebSocket');
    return head;
  }

  /** Null when there is nothing to tell. */
  protected abstract tally(direction: Way): Tally | null;
  protected abstract outboundBody(contentType: string): BodyFilter | null;
  protected inboundBody(_contentType: string): BodyFilter | null {
    return null;
  }

  /** @throws Refusal when what cannot be scanned must not pass. */
  protected cannotScan(direction: Way, why: string): void {
    const refused = this.#unscanned === 'refuse';
    this.#notScanned.set(`${direction} ${why}`, { guardrail: this.#name, direction, outcome: 'not_scanned', blocked: refused, counts: {}, score: null, reason: why });
    const what = direction === 'outbound' ? 'request' : 'answer';
    if (refused) throw new Refusal(403, 'not_scanned', `The ${what} cannot be looked into for ${wordsOf(this.#name)}: ${why}. The policy of this sandbox does not let such a one pass.`);
  }

  /** Told and passed, whatever the switch says: nothing could be found in it. */
  protected passUnscanned(direction: Way, why: string): void {
    this.#notScanned.set(`${direction} ${why}`, { guardrail: this.#name, direction, outcome: 'not_scanned', blocked: false, counts: {}, score: null, reason: why });
  }

  /** Notes that a message did not pass. */
  protected block(direction: Way): void {
    this.#blocked.add(direction);
  }

  protected run<T>(direction: Way, work: () => T): T {
    try {
      return work();
    } catch (reason) {
      throw this.refusalOf(direction, reason);
    }
  }

  /** What a scanner throws, in words of HTTP. */
  protected refusalOf(direction: Way, reason: unknown): unknown {
    if (reason instanceof PiiRefused || reason instanceof TextRefused || reason instanceof TransformationRefused) {
      this.block(direction);
      return new Refusal(403, reason.code, sentence(reason.message));
    }
    if (!(reason instanceof MalformedMultipart)) return reason;
    this.block(direction);
    return new Refusal(403, 'not_scanned', `The body cannot be looked into: ${reason.message}.`);
  }

  /** A scanner's filter as one of bodies. */
  protected filter(direction: Way, filter: PartFilter, { changes, holds }: { readonly changes: boolean; readonly holds: boolean }): BodyFilter {
    return new ScannedBody(filter, (reason) => this.refusalOf(direction, reason), changes, holds);
  }
}

const sliceSize = 16 << 10;

/** Gives a body to a scanner in slices, so that no large piece holds up everybody else. */
class ScannedBody implements BodyFilter {
  readonly changes: boolean;
  readonly #filter: PartFilter;
  readonly #refusalOf: (reason: unknown) => unknown;
  readonly #mayHold: boolean;
  #size = 0;

  constructor(filter: PartFilter, refusalOf: (reason: unknown) => unknown, changes: boolean, holds: boolean) {
    this.changes = changes;
    this.#filter = filter;
    this.#refusalOf = refusalOf;
    this.#mayHold = holds;
  }

  get holds(): boolean {
    return this.#mayHold && this.#size <= mostHeld;
  }

  push(chunk: Buffer): Buffer | Promise<Buffer> {
    this.#size += chunk.length;
    return chunk.length <= sliceSize ? this.#write(chunk) : this.#sliced(chunk);
  }

  end(): Buffer {
    try {
      return this.#filter.end();
    } catch (reason) {
      throw this.#refusalOf(reason);
    }
  }

  async #sliced(chunk: Buffer): Promise<Buffer> {
    const out: Buffer[] = [];
    for (let from = 0; from < chunk.length; from += sliceSize) {
      if (from > 0) await nextTurn();
      out.push(this.#write(chunk.subarray(from, from + sliceSize)));
    }
    return Buffer.concat(out);
  }

  #write(chunk: Buffer): Buffer {
    try {
      return this.#filter.write(chunk);
    } catch (reason) {
      throw this.#refusalOf(reason);
    }
  }
}

/** Bytes of a body that waits as a whole. */
export const mostHeld = 32 << 20;

export function contentTypeOf(headers: readonly string[]): string {
  for (let i = 0; i < headers.length; i += 2) if (headers[i]!.toLowerCase() === 'content-type') return headers[i + 1]!;
  return '';
}

export function wordsOf(name: GuardrailName): string {
  return name === 'pii' ? 'personal data' : name === 'injection_defense' ? 'prompt injection' : name.replace('_', ' ');
}

function sentence(text: string): string {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return whole.endsWith('.') ? whole : `${whole}.`;
}
