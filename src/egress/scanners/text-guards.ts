import { type InvisibleFinding, InvisibleTextFilter } from './invisible-text.ts';
import type { PartFilter } from './multipart.ts';
import { textFilter } from './text-filter.ts';

/** Why a body does not pass. */
export class TextRefused extends Error {
  readonly code: 'hidden_text_found' | 'text_unreadable';

  constructor(code: TextRefused['code'], reason: string) {
    super(reason);
    this.name = 'TextRefused';
    this.code = code;
  }
}

export interface InvisibleTextPolicy {
  readonly action: 'strip' | 'block' | 'log_only';
  readonly detectZeroWidth: boolean;
  /** Called with why a text cannot be read; it passes when this returns. Without it, it is refused unless it is only looked at. */
  readonly unreadable?: (why: string) => void;
  readonly binary?: () => void;
}

/** What one body goes through that is searched for hidden text. */
export class InvisibleTextGuard implements PartFilter {
  readonly #filters: InvisibleTextFilter[] = [];
  readonly #body: PartFilter;

  constructor(contentType: string, { action, detectZeroWidth, unreadable, binary }: InvisibleTextPolicy) {
    this.#body = textFilter(contentType, {
      make: (syntax) => {
        const filter = new InvisibleTextFilter({ syntax, strip: action === 'strip', detectZeroWidth });
        this.#filters.push(filter);
        return action === 'block' ? checked(filter, () => refuseHidden(filter.findings)) : filter;
      },
      unreadable: unreadable ?? ((why) => refuseUnreadable(why, action)),
      ...(binary === undefined ? {} : { binary }),
    });
  }

  get findings(): readonly InvisibleFinding[] {
    return this.#filters.flatMap(({ findings }) => findings);
  }

  /** @throws TextRefused */
  write(chunk: Buffer): Buffer {
    return this.#body.write(chunk);
  }

  /** @throws TextRefused */
  end(): Buffer {
    return this.#body.end();
  }
}

function checked(filter: PartFilter, check: () => void): PartFilter {
  const through = (out: Buffer): Buffer => {
    check();
    return out;
  };
  return { write: (chunk) => through(filter.write(chunk)), end: () => through(filter.end()) };
}

function refuseHidden(findings: readonly InvisibleFinding[]): void {
  if (findings.length === 0) return;
  throw new TextRefused('hidden_text_found', `The body has characters that nobody sees (${findings.map(({ kind, count }) => `${count} × ${kind}`).join(', ')}), which the policy of this sandbox does not let pass.`);
}

function refuseUnreadable(why: string, action: string): void {
  if (action !== 'log_only') throw new TextRefused('text_unreadable', `The body cannot be looked into: ${why}. Send it as UTF-8.`);
}
