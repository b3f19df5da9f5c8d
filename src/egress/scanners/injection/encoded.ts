import { isUtf8 } from 'node:buffer';

/** A stretch of the text that hides another text. */
export interface Encoded {
  readonly text: string;
  /** Where it begins in the text that was searched, code units. */
  readonly at: number;
}

const PROBE_BYTES = 12;
const FEWEST_BYTES = 8;

// Each alternative is a plain run or a run of fixed groups, so that a search takes linear time.
const base64Runs = /[A-Za-z0-9+/_-]{12,}(?:(?:\\r)?(?:\\n|\r?\n)[A-Za-z0-9+/_-]{12,})*/g;
const hexRuns = /(?:0x|\\x|%|\b)?[\dA-Fa-f]{2}(?:(?:[ ,:]{0,2}(?:0x|\\x)?)[\dA-Fa-f]{2}){7,}/g;
const binaryRuns = /[01]{8}(?:[ ,]?[01]{8}){7,}/g;
// The search is in code units: supplementary selectors are U+DB40 followed by U+DD00 to U+DDEF.
const selectorRuns = /(?:[\uFE00-\uFE0F]|\uDB40[\uDD00-\uDDEF]){8,}/g;
const reversedRuns = /\u202E[^\u202C\u2069\n]{8,2000}/g;

/**
 * Texts hidden in base64, hexadecimal, binary digits, variation selectors, or written backwards under a right-to-left override.
 * Only what decodes to readable text counts. Stops when together they are longer than `budget` code units.
 */
export function* encodedTexts(text: string, budget: number): Generator<Encoded> {
  let left = budget;
  for (const [runs, decode] of searches) {
    for (const match of text.matchAll(runs)) {
      if (left <= 0) return;
      // Of a run only so much is decoded as still counts; base64, the densest, takes 4 units for 3 bytes.
      const found = decode(match[0].length > left * 24 ? match[0].slice(0, left * 24) : match[0]);
      if (found === null) continue;
      const kept = found.slice(0, left);
      left -= kept.length;
      yield { text: kept, at: match.index };
    }
  }
}

const searches: readonly (readonly [RegExp, (run: string) => string | null])[] = [
  [base64Runs, decodeBase64],
  [hexRuns, decodeHex],
  [binaryRuns, decodeBinary],
  [selectorRuns, decodeSelectors],
  [reversedRuns, (run) => Array.from(run.slice(1)).toReversed().join('')],
];

/** From whichever of the four places a group can begin: a label, or the cut between two pieces, may stick to the front. */
function decodeBase64(run: string): string | null {
  const plain = run.replaceAll(/\\[rn]|[\r\n]/g, '');
  const probe = Math.ceil((PROBE_BYTES * 4) / 3 / 4) * 4;
  for (let skip = 0; skip < 4; skip++) {
    if (!isReadable(Buffer.from(plain.slice(skip, skip + probe), 'base64'), true)) continue;
    const bytes = Buffer.from(plain.slice(skip), 'base64');
    if (isReadable(bytes, false)) return bytes.toString('utf8');
  }
  // UTF-16, as PowerShell's encoded commands are.
  const bytes = Buffer.from(plain, 'base64');
  if (bytes.length >= 2 * FEWEST_BYTES && bytes[1] === 0 && bytes[3] === 0) {
    const wide = Buffer.from(bytes.toString('utf16le'), 'utf8');
    if (isReadable(wide, false)) return wide.toString('utf8');
  }
  return null;
}

function decodeHex(run: string): string | null {
  const digits = run.replaceAll(/0x|\\x|[^\dA-Fa-f]/g, '');
  const bytes = Buffer.from(digits.slice(0, digits.length & ~1), 'hex');
  return isReadable(bytes, false) ? bytes.toString('utf8') : null;
}

function decodeBinary(run: string): string | null {
  const digits = run.replaceAll(/[ ,]/g, '');
  const bytes = new Uint8Array(digits.length >> 3);
  for (let i = 0; i < bytes.length; i++) for (let bit = 0; bit < 8; bit++) bytes[i] = (bytes[i]! << 1) | (digits.charCodeAt(i * 8 + bit) & 1);
  return isReadable(bytes, false) ? Buffer.from(bytes).toString('utf8') : null;
}

/** A byte a selector: 1 to 16 at U+FE00, 17 to 256 at U+E0100. */
function decodeSelectors(run: string): string | null {
  const bytes: number[] = [];
  for (let i = 0; i < run.length; i++) {
    const unit = run.charCodeAt(i);
    bytes.push(unit === 0xdb40 ? run.charCodeAt(++i) - 0xdd00 + 16 : unit - 0xfe00);
  }
  const data = Uint8Array.from(bytes);
  return isReadable(data, false) ? Buffer.from(data).toString('utf8') : null;
}

/** Whether the bytes are text: UTF-8 without control characters, and where it is short or not ASCII, mostly letters and spaces. `cut`: the end may lie inside a character. */
function isReadable(bytes: Uint8Array, cut: boolean): boolean {
  if (bytes.length < FEWEST_BYTES) return false;
  let [letters, controls, high] = [0, 0, 0];
  for (const byte of bytes) {
    if (byte >= 0x80) high++;
    else if ((byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a) letters++;
    else if (byte === 0x20) letters++;
    else if (byte < 0x20 && byte !== 9 && byte !== 10 && byte !== 13) controls++;
  }
  if (controls > 0) return false;
  // So many printable characters are no accident, whatever they are.
  if (high === 0 && bytes.length >= PROBE_BYTES) return true;
  if (letters + high < bytes.length * 0.7) return false;
  if (high === 0 || isUtf8(bytes)) return true;
  // Cut inside its last character is fine.
  return cut && [1, 2, 3].some((drop) => isUtf8(bytes.subarray(0, bytes.length - drop)));
}
