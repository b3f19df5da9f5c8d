import type { PartFilter } from '../multipart.ts';
import { chained, textFilter } from '../text-filter.ts';
import type { Syntax } from '../view.ts';
import type { PiiOptions } from './find.ts';
import { type AnswerSyntax, Rehydrator } from './rehydrator.ts';
import { StreamRedactor } from './stream-redactor.ts';
import { TokenJoiner } from './token-joiner.ts';
import type { TokenTable } from './tokens.ts';
import type { Finding, PiiType } from './types.ts';

export interface PiiPolicy extends PiiOptions {
  readonly action: 'redact' | 'block' | 'log_only';
  /** Whether tokens in answers become values again. */
  readonly rehydrate: boolean;
  /** What happens to a text that cannot be read. */
  readonly unscanned?: 'refuse' | 'pass';
  /** What has to pass as it is: stand-ins of secrets. */
  readonly except?: (value: string) => boolean;
}

/** Why a request is not sent. */
export class PiiRefused extends Error {
  readonly code: 'pii_found' | 'pii_unreadable';

  constructor(code: PiiRefused['code'], reason: string) {
    super(reason);
    this.name = 'PiiRefused';
    this.code = code;
  }
}

/** Text that passed without being looked into, and why. */
export interface NotScanned {
  readonly reason: string;
}

/** Why what is not text is not looked into. */
export const binaryReason = 'it is not text';

/** Personal data in one request to a host, and in its answer. */
export class PiiExchange {
  readonly #policy: PiiPolicy;
  readonly #table: TokenTable;
  readonly #host: string;
  readonly #redactors: StreamRedactor[] = [];
  readonly #rehydrators: Rehydrator[] = [];
  readonly #notScanned: NotScanned[] = [];

  /**
   * @param table Of the sandbox.
   * @param host Canonical name or address of the host that the request goes to; tokens are turned back for no other.
   */
  constructor(policy: PiiPolicy, table: TokenTable, host: string) {
    this.#policy = policy;
    this.#table = table;
    this.#host = host;
  }

  /** What was found in the request so far. */
  get findings(): readonly Finding[] {
    const counts = new Map<PiiType, number>();
    for (const { findings } of this.#redactors) for (const { type, count } of findings) counts.set(type, (counts.get(type) ?? 0) + count);
    return [...counts].map(([type, count]) => ({ type, count }));
  }

  /** How many tokens of the answer became values again. */
  get rehydrated(): number {
    return this.#rehydrators.reduce((sum, { count }) => sum + count, 0);
  }

  get notScanned(): readonly NotScanned[] {
    return this.#notScanned;
  }

  /** Path and query as they are to be sent. @throws PiiRefused */
  target(target: string): string {
    const query = target.indexOf('?');
    const split = query < 0 ? target.length : query;
    const filtered = (text: string, syntax: Syntax): string => {
      const filter = this.#redactor(syntax);
      return Buffer.concat([filter.write(Buffer.from(text, 'latin1')), filter.end()]).toString('latin1');
    };
    return filtered(target.slice(0, split), 'path') + filtered(target.slice(split), 'form');
  }

  /** What the body of the request goes through. Its methods throw PiiRefused. */
  requestBody(contentType: string): PartFilter {
    return textFilter(contentType, {
      make: (syntax) => this.#redactor(syntax),
      unreadable: (why) => {
        if (this.#policy.action !== 'log_only' && this.#policy.unscanned !== 'pass') throw new PiiRefused('pii_unreadable', `The body cannot be searched for personal data: ${why}. Send it as UTF-8.`);
        this.#notScanned.push({ reason: why });
      },
      binary: () => void this.#notScanned.push({ reason: binaryReason }),
    });
  }

  /** What the body of the answer goes through; null when nothing in it is to be turned back. */
  responseBody(contentType: string): PartFilter | null {
    if (this.#policy.action !== 'redact' || !this.#policy.rehydrate || this.#table.size === 0) return null;
    const type = contentType.split(';', 1)[0]!.trim().toLowerCase();
    if (type === 'text/event-stream') return chained(new TokenJoiner(), this.#rehydrator('sse'));
    // An answer that cannot be read keeps its tokens: nothing leaves by that.
    return textFilter(contentType, { make: (syntax) => this.#rehydrator(syntax === 'path' ? 'plain' : syntax), unreadable: () => {} });
  }

  #rehydrator(syntax: AnswerSyntax): Rehydrator {
    const rehydrator = new Rehydrator({ syntax, valueFor: (token) => this.#table.valueFor(token, this.#host) });
    this.#rehydrators.push(rehydrator);
    return rehydrator;
  }

  #redactor(syntax: Syntax): PartFilter {
    const { action, except, ...options } = this.#policy;
    const redactor = new StreamRedactor({ ...options, syntax, replace: (type, value) => (action === 'redact' && except?.(value) !== true ? this.#table.tokenFor(type, value, this.#host) : null) });
    this.#redactors.push(redactor);
    if (action !== 'block') return redactor;
    // What was found is in what would be given back, so that none of it has left yet.
    const refuseFound = (out: Buffer): Buffer => {
      const found = redactor.findings.map(({ type }) => type);
      if (found.length > 0) throw new PiiRefused('pii_found', `The request holds personal data (${found.join(', ')}), which the policy of this sandbox does not let out.`);
      return out;
    };
    return { write: (chunk) => refuseFound(redactor.write(chunk)), end: () => refuseFound(redactor.end()) };
  }
}
