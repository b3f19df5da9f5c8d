import { randomInt } from 'node:crypto';
import type { SandboxId } from '../../../core/ids.ts';
import { defaultTokenLimits, TokenTable } from './tokens.ts';

const mostTables = 2000;
/** No vowels: it reads as no word. */
const letters = 'BCDFGHJKLMNPQRSTVWXZ';
const partLength = 5;

/**
 * The tokens of each sandbox, for as long as this process lives: also while a sandbox is paused. A table of a later process, of a fork or of a
 * sandbox that was forgotten gives other tokens, so that an old one, which programs or hosts may still know, never means another value.
 */
export class TokenTables {
  readonly #tables = new Map<SandboxId, TokenTable>();

  /** Least recently used ones are forgotten beyond a bound. */
  of(id: SandboxId): TokenTable {
    const table = this.#tables.get(id) ?? new TokenTable(defaultTokenLimits, Array.from({ length: partLength }, () => letters[randomInt(letters.length)]).join(''));
    this.#tables.delete(id);
    this.#tables.set(id, table);
    if (this.#tables.size > mostTables) this.#tables.delete(this.#tables.keys().next().value!);
    return table;
  }
}
