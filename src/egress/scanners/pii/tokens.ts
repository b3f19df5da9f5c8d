import type { PiiType } from './types.ts';

interface Entry {
  readonly token: string;
  readonly value: string;
  /** Hosts that were sent the token, latest last. */
  readonly hosts: Set<string>;
}

export interface TokenLimits {
  readonly values: number;
  /** Characters of all values together. */
  readonly characters: number;
  readonly hostsPerValue: number;
}

export const defaultTokenLimits: TokenLimits = Object.freeze({ values: 10_000, characters: 4 << 20, hostsPerValue: 64 });

/** What a token looks like. */
export const tokenPattern = /^\[REDACTED_([A-Z_]{3,24})_([1-9]\d{0,8})\]$/;
/** No token is longer than this many characters. */
export const longestToken = 40;

/**
 * What stands for the personal data of one sandbox outside of it: `[REDACTED_EMAIL_1]`. The same value has the same token wherever it is sent,
 * but only those hosts that were sent it get it turned back: a token that somebody makes up, or passes on to another host, stays a token.
 *
 * Bounded: beyond the limits the values that were not used for longest are forgotten. Their tokens are not given out again.
 */
export class TokenTable {
  readonly #limits: TokenLimits;
  readonly #part: string;
  /** By kind and value, least recently used first. */
  readonly #entries = new Map<string, Entry>();
  readonly #keys = new Map<string, string>();
  readonly #numbers = new Map<PiiType, number>();
  #characters = 0;

  /** @param part Letters that tokens carry, so that those of one table are not taken for another's. */
  constructor(limits: TokenLimits = defaultTokenLimits, part = '') {
    this.#limits = limits;
    this.#part = part === '' ? '' : `_${part}`;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The token to send to a host in the place of a value. */
  tokenFor(type: PiiType, value: string, host: string): string {
    const key = `${type}\0${value}`;
    const entry = this.#entries.get(key) ?? this.#added(type, value, key);
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    entry.hosts.delete(host);
    entry.hosts.add(host);
    if (entry.hosts.size > this.#limits.hostsPerValue) entry.hosts.delete(entry.hosts.values().next().value!);
    this.#forget();
    return entry.token;
  }

  /** What a token of a host stands for; null when it was not sent to this host. */
  valueFor(token: string, host: string): string | null {
    const key = this.#keys.get(token);
    const entry = key === undefined ? undefined : this.#entries.get(key);
    if (key === undefined || entry === undefined || !entry.hosts.has(host)) return null;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.value;
  }

  #added(type: PiiType, value: string, key: string): Entry {
    const number = (this.#numbers.get(type) ?? 0) + 1;
    this.#numbers.set(type, number);
    const entry: Entry = { token: `[REDACTED_${type.toUpperCase()}${this.#part}_${number}]`, value, hosts: new Set() };
    this.#keys.set(entry.token, key);
    this.#characters += value.length;
    return entry;
  }

  #forget(): void {
    for (const [key, { token, value }] of this.#entries) {
      if (this.#entries.size === 1 || (this.#entries.size <= this.#limits.values && this.#characters <= this.#limits.characters)) return;
      this.#entries.delete(key);
      this.#keys.delete(token);
      this.#characters -= value.length;
    }
  }
}
