import type { Unscanned } from '../../core/guardrails/finding.ts';
import type { InvisibleTextRules } from '../../core/guardrails/guardrails.ts';
import { binaryReason } from '../scanners/pii/exchange.ts';
import { InvisibleTextGuard } from '../scanners/text-guards.ts';
import { readableOnly } from './content-coding.ts';
import { Guard, type Way } from './guard.ts';
import type { BodyFilter, RequestHead } from './stage.ts';

/** Finds characters that nobody sees, in requests and answers. */
export class HiddenTextStage extends Guard {
  readonly #rules: InvisibleTextRules;
  readonly #guards = new Map<Way, InvisibleTextGuard>();

  constructor(rules: InvisibleTextRules, unscanned: Unscanned) {
    super('invisible_text', rules.action === 'log_only' ? 'pass' : unscanned);
    this.#rules = rules;
  }

  request(head: RequestHead): RequestHead {
    return { ...head, headers: readableOnly(head.headers) };
  }

  protected tally(direction: Way): ReturnType<Guard['tally']> {
    const findings = this.#guards.get(direction)?.findings ?? [];
    if (findings.length === 0) return null;
    const counts: Record<string, number> = {};
    for (const { kind, count } of findings) counts[kind] = (counts[kind] ?? 0) + count;
    return { outcome: this.#rules.action === 'strip' ? 'changed' : 'found', blocked: false, counts, score: null };
  }

  protected outboundBody(contentType: string): BodyFilter {
    return this.#body('outbound', contentType);
  }

  protected override inboundBody(contentType: string): BodyFilter {
    return this.#body('inbound', contentType);
  }

  #body(direction: Way, contentType: string): BodyFilter {
    const { action, detectZeroWidth } = this.#rules;
    const guard = new InvisibleTextGuard(contentType, { action, detectZeroWidth, unreadable: (why) => this.cannotScan(direction, why), binary: () => this.passUnscanned(direction, binaryReason) });
    this.#guards.set(direction, guard);
    return this.filter(direction, guard, { changes: action === 'strip', holds: action === 'block' });
  }
}
