import { MatcherInputBase } from 're2js';

/** Characters that may still be read. */
export interface Allowance {
  left: number;
}

/** More characters were read than allowed. */
export class AllowanceSpent extends Error {}

/**
 * A text for RE2JS that counts how often its characters are read. A search is linear in the text, but one for *every* match is not: each may
 * look to the end before it knows that it was shorter (`a.*b|a`).
 */
export class MeteredText extends MatcherInputBase {
  readonly #metered: Metered;

  constructor(text: string, allowance: Allowance) {
    super();
    this.#metered = new Metered(text, allowance);
  }

  override getEncoding(): number {
    return (MatcherInputBase as unknown as { Encoding: { UTF_16: number } }).Encoding.UTF_16;
  }

  override asCharSequence(): string {
    return this.#metered as unknown as string;
  }

  override asBytes(): Uint8Array {
    return Buffer.from(String(this.#metered));
  }

  override length(): number {
    return this.#metered.length;
  }
}

/** A text object whose reads are counted: RE2JS takes objects for texts, too. */
class Metered extends String {
  readonly #text: string;
  readonly #allowance: Allowance;

  constructor(text: string, allowance: Allowance) {
    super(text);
    this.#text = text;
    this.#allowance = allowance;
  }

  override charCodeAt(at: number): number {
    if (--this.#allowance.left < 0) throw new AllowanceSpent('too many characters were read');
    return this.#text.charCodeAt(at);
  }

  override indexOf(what: string, from = 0): number {
    const at = this.#text.indexOf(what, from);
    // Much faster than reading one by one.
    this.#allowance.left -= ((at < 0 ? this.#text.length : at) - from) >>> 5;
    if (this.#allowance.left < 0) throw new AllowanceSpent('too many characters were read');
    return at;
  }
}
