/** The n-grams of a text, as places in a table of weights, grouped by the token they begin at. */
export interface Features {
  /** How many tokens: words, numbers, single characters of scripts without spaces. */
  readonly tokens: number;
  /** Where token t begins in the text, for t in [0, tokens]; the last is the end of the text. Length tokens + 1. */
  readonly starts: Uint32Array;
  /** The n-grams of token t are `buckets[offsets[t]]` up to `buckets[offsets[t + 1]]`. Length tokens + 1. */
  readonly offsets: Uint32Array;
  /** Each in [0, 2 ** bits). */
  readonly buckets: Uint32Array;
}

/** Characters of an n-gram over letters, shortest and longest. */
const SHORTEST = 3;
const LONGEST = 5;
/** Per token: itself, with the next, with the next two, with the one after the next, with the third. */
const WORD_GRAMS = 5;
/** A longer run of letters and digits is several tokens, so that a blob is not one word of any length. */
const LONGEST_TOKEN = 24;

const PRIME = 0x01000193;
const LINE_FEED = 0x0a;

/**
 * Hashed n-grams of a normalised text: of 3, 4 and 5 characters, and of words (one, two, three in a row, and pairs with a gap).
 * Digits are all the same digit. Nothing reaches across a line feed, which divides a text from what was decoded out of it.
 */
export function featuresOf(text: string, bits: number): Features {
  const mask = 2 ** bits - 1;
  const length = text.length;
  const units = new Uint16Array(length + LONGEST);
  for (let i = 0; i < length; i++) {
    const unit = text.charCodeAt(i);
    units[i] = unit >= 0x30 && unit <= 0x39 ? 0x30 : unit;
  }
  const { starts, words, tokens } = tokensOf(units, length);
  const offsets = new Uint32Array(tokens + 1);
  const buckets = new Uint32Array((length + 1) * (LONGEST - SHORTEST + 1) + tokens * WORD_GRAMS);
  let count = 0;
  for (let t = 0; t < tokens; t++) {
    offsets[t] = count;
    const end = t + 1 < tokens ? starts[t + 1]! : length;
    for (let i = starts[t]!; i < end; i++) {
      let hash = 0x811c9dc5;
      for (let n = 1; n <= LONGEST; n++) {
        const unit = units[i + n - 1]!;
        if (unit === LINE_FEED || unit === 0) break;
        hash = Math.imul(hash ^ unit, PRIME);
        if (n >= SHORTEST) buckets[count++] = mixed(hash) & mask;
      }
    }
    const word = words[t]!;
    const [second, third, fourth] = [words[t + 1] ?? 0, words[t + 2] ?? 0, words[t + 3] ?? 0];
    buckets[count++] = mixed(word) & mask;
    if (word === 0 || second === 0) continue;
    const pair = Math.imul(word, 0x9e3779b1) ^ second;
    buckets[count++] = mixed(pair) & mask;
    if (third === 0) continue;
    buckets[count++] = mixed(Math.imul(pair, 0x85ebca6b) ^ third) & mask;
    buckets[count++] = mixed(Math.imul(word, 0xc2b2ae35) ^ third) & mask;
    if (fourth !== 0) buckets[count++] = mixed(Math.imul(word, 0x27d4eb2f) ^ fourth) & mask;
  }
  offsets[tokens] = count;
  return { tokens, starts, offsets, buckets: buckets.subarray(0, count) };
}

/** Words by their hash; a line feed is a token of hash 0, so that no pair reaches across it. */
function tokensOf(units: Uint16Array, length: number): { starts: Uint32Array; words: Int32Array; tokens: number } {
  const starts = new Uint32Array(length + 1);
  const words = new Int32Array(length + 1);
  let tokens = 0;
  for (let i = 0; i < length; ) {
    const unit = units[i]!;
    if (unit === LINE_FEED) {
      starts[tokens] = i++;
      words[tokens++] = 0;
      continue;
    }
    if (!isWordUnit(unit)) {
      i++;
      continue;
    }
    starts[tokens] = i;
    let hash = 0x2f0b4a27;
    const longest = isIdeograph(unit) ? i + 1 : Math.min(length, i + LONGEST_TOKEN);
    do hash = Math.imul(hash ^ units[i++]!, PRIME);
    while (i < longest && isWordUnit(units[i]!) && !isIdeograph(units[i]!));
    words[tokens++] = hash === 0 ? 1 : hash;
  }
  // What precedes the first word belongs to it, or stands alone.
  if (tokens === 0 && length > 0) words[tokens++] = 0;
  starts[0] = 0;
  starts[tokens] = length;
  return { starts: starts.subarray(0, tokens + 1), words: words.subarray(0, tokens), tokens };
}

function isWordUnit(unit: number): boolean {
  if (unit < 0x80) return (unit >= 0x61 && unit <= 0x7a) || unit === 0x30;
  return unit > 0xbf && (unit < 0x2000 || unit >= 0x3040) && !(unit >= 0x3000 && unit <= 0x303f) && !(unit >= 0xff00 && unit <= 0xff0f);
}

/** Scripts written without spaces: each character is a token. Hangul has spaces. */
function isIdeograph(unit: number): boolean {
  return (unit >= 0x3040 && unit <= 0x30ff) || (unit >= 0x3400 && unit <= 0x9fff) || (unit >= 0x0e00 && unit <= 0x0e7f);
}

function mixed(hash: number): number {
  let value = hash ^ (hash >>> 15);
  value = Math.imul(value, 0x2c1b3c6d);
  return (value ^ (value >>> 13)) >>> 0;
}
