import type { Unscanned } from '../../core/guardrails/finding.ts';
import type { PiiRules } from '../../core/guardrails/guardrails.ts';
import { PiiExchange } from '../scanners/pii/exchange.ts';
import type { TokenTable } from '../scanners/pii/tokens.ts';
import { readableOnly } from './content-coding.ts';
import { Guard, type Way } from './guard.ts';
import type { BodyFilter, RequestHead } from './stage.ts';

/** Where telephone numbers without a country code are from. */
const region = 'US';

/** Keeps personal data from leaving, and puts it back where it comes home. */
export class PiiStage extends Guard {
  readonly #rules: PiiRules;
  readonly #exchange: PiiExchange;
  #target: string | null = null;
  #inTarget = false;

  /** @param standIns of secrets, which have to pass: they are put in the place of behind this. */
  constructor(rules: PiiRules, unscanned: Unscanned, table: TokenTable, host: string, standIns: ReadonlySet<string>) {
    super('pii', rules.action === 'log_only' ? 'pass' : unscanned);
    this.#rules = rules;
    const { action, rehydrate, types } = rules;
    this.#exchange = new PiiExchange({ types: new Set(types), phone: { region }, action, rehydrate, unscanned, except: (value) => standIns.has(value) }, table, host);
  }

  /** As much of a path as a log may hold. */
  loggable(path: string): string {
    if (this.#target === null || (this.#rules.action !== 'redact' && this.#inTarget)) return '/[redacted]';
    return this.#rules.action === 'redact' ? this.#target : path;
  }

  request(head: RequestHead): RequestHead {
    const target = this.run('outbound', () => this.#exchange.target(head.target));
    this.#target = target;
    this.#inTarget = this.#exchange.findings.length > 0;
    const rehydrates = this.#rules.action === 'redact' && this.#rules.rehydrate;
    return { ...head, target, headers: rehydrates ? readableOnly(head.headers) : head.headers };
  }

  override get findings(): Guard['findings'] {
    for (const { reason } of this.#exchange.notScanned) this.passUnscanned('outbound', reason);
    return super.findings;
  }

  protected tally(direction: Way): ReturnType<Guard['tally']> {
    const { findings, rehydrated } = this.#exchange;
    const { action } = this.#rules;
    if (direction === 'inbound') return rehydrated === 0 ? null : { outcome: 'changed', blocked: false, counts: { rehydrated }, score: null };
    if (findings.length === 0) return null;
    return { outcome: action === 'redact' ? 'changed' : 'found', blocked: false, counts: Object.fromEntries(findings.map(({ type, count }) => [type, count])), score: null };
  }

  protected outboundBody(contentType: string): BodyFilter {
    return this.filter('outbound', this.#exchange.requestBody(contentType), { changes: this.#rules.action === 'redact', holds: this.#rules.action === 'block' });
  }

  protected override inboundBody(contentType: string): BodyFilter | null {
    const body = this.#exchange.responseBody(contentType);
    return body === null ? null : this.filter('inbound', body, { changes: true, holds: false });
  }
}
