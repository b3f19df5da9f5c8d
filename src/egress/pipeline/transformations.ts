import type { Unscanned } from '../../core/guardrails/finding.ts';
import type { TransformationRule } from '../../core/guardrails/transformations.ts';
import { TransformedBody } from '../scanners/transform-thread.ts';
import type { Outcome } from '../scanners/transform-worker.ts';
import { binaryReason } from '../scanners/pii/exchange.ts';
import { readableOnly } from './content-coding.ts';
import { Guard, type Way } from './guard.ts';
import { type BodyFilter, Refusal, type RequestHead } from './stage.ts';

/** Replaces texts in bodies by the rules of the owner. */
export class TransformationsStage extends Guard {
  readonly #rules: Readonly<Record<Way, readonly TransformationRule[]>>;
  readonly #counts = new Map<Way, number>();

  constructor(rules: readonly TransformationRule[], unscanned: Unscanned) {
    super('transformations', unscanned);
    this.#rules = { outbound: rules.filter(({ direction }) => direction !== 'inbound'), inbound: rules.filter(({ direction }) => direction !== 'outbound') };
  }

  request(head: RequestHead): RequestHead {
    return this.#rules.inbound.length === 0 ? head : { ...head, headers: readableOnly(head.headers) };
  }

  override unpacks(contentEncoding: string): boolean {
    return this.#rules.outbound.length > 0 && super.unpacks(contentEncoding);
  }

  protected tally(direction: Way): ReturnType<Guard['tally']> {
    const count = this.#counts.get(direction) ?? 0;
    return count === 0 ? null : { outcome: 'changed', blocked: false, counts: { replaced: count }, score: null };
  }

  protected outboundBody(contentType: string): BodyFilter | null {
    return this.#body('outbound', contentType);
  }

  protected override inboundBody(contentType: string): BodyFilter | null {
    return this.#body('inbound', contentType);
  }

  #body(direction: Way, contentType: string): BodyFilter | null {
    const rules = this.#rules[direction];
    if (rules.length === 0) return null;
    const body = new TransformedBody(contentType, rules);
    const through = async (work: Promise<Outcome>): Promise<Buffer> => {
      let outcome: Outcome;
      try {
        outcome = await work;
      } catch (reason) {
        this.block(direction);
        throw new Refusal(403, 'transformation_too_slow', `The body cannot be transformed: ${(reason as Error).message}.`);
      }
      const { bytes, count, unreadable, binary, refused } = outcome;
      if (refused !== undefined) {
        this.block(direction);
        throw new Refusal(403, refused.code, `The body cannot be transformed: ${refused.reason}.`);
      }
      this.#counts.set(direction, count);
      if (binary) this.passUnscanned(direction, binaryReason);
      for (const why of unreadable) this.cannotScan(direction, why);
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    };
    return { changes: true, push: (chunk) => through(body.write(chunk)), end: () => through(body.end()), close: () => body.close() };
  }
}
