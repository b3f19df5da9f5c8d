import { encodedTexts } from './encoded.ts';
import { escapeAt } from './escapes.ts';
import { foldedCharacter } from './fold.ts';
import { joinSpacedLetters, readDigitsAsLetters } from './spelling.ts';
import { isLetter, SPACE, WIDE_GAP, Written } from './written.ts';

/** A text as a model may read it, whatever disguise it came in. */
export interface Normalised {
  /** Lower case, look-alikes folded, white space and repetitions cut short; what was hidden in it follows, each after a line feed. */
  readonly text: string;
  /** For each code unit of `text`, the code unit of the original that it came from; of a decoded part, where its encoding begins. */
  readonly origins: Uint32Array;
}

/** What decoding may add to one text, code units. */
const MOST_DECODED = 32_768;
/** Base64 of base64 is opened, and what is inside that; no deeper. */
const DEEPEST = 3;
/** The same character in a row; more are left out. */
const MOST_REPEATED = 3;
const LINE_FEED = 0x0a;
/** A character may become several, a text not more than this many times itself. */
const GROWTH = 2;


/** Takes time in proportion to the length of the text. */
export function normalise(text: string): Normalised {
  const written = new Written(text.length, text.length * GROWTH + MOST_DECODED * GROWTH);
  write(text, written, null, 0, { left: MOST_DECODED });
  // Unlike a text decoder, this keeps halves of pairs. All machines that this runs on are little-endian.
  const plain = Buffer.from(written.units.buffer, 0, written.length * 2).toString('utf16le');
  return { text: plain, origins: written.origins.subarray(0, written.length) };
}

/** `origin`: where in the outermost text everything here comes from; null when this is the outermost text. */
function write(text: string, written: Written, origin: number | null, depth: number, decoding: { left: number }): void {
  const plain = new Written(text.length, text.length * GROWTH + 16);
  fold(text, plain);
  const joined = joinSpacedLetters(plain);
  readDigitsAsLetters(joined);
  let same = 0;
  for (let i = 0; i < joined.length; i++) {
    const unit = joined.units[i] === WIDE_GAP ? SPACE : joined.units[i]!;
    if (unit === SPACE && (written.last() === SPACE || written.last() === LINE_FEED || written.length === 0)) continue;
    // A ruler of slashes, or a word drawn out, is not louder for being longer.
    same = unit === written.last() ? same + 1 : 1;
    if (same > MOST_REPEATED) continue;
    written.unit(unit, origin ?? joined.origins[i]!);
  }
  if (depth >= DEEPEST) return;
  for (const { text: inner, at } of encodedTexts(text, decoding.left)) {
    decoding.left -= inner.length;
    written.unit(LINE_FEED, origin ?? at);
    write(inner, written, origin ?? at, depth + 1, decoding);
  }
}

/** Escapes and tags become what they stand for, characters what they look like; gaps of more than one character are marked. */
function fold(text: string, into: Written): void {
  for (let at = 0; at < text.length; ) {
    const unit = text.charCodeAt(at);
    if (unit < 0x80) {
      if (unit === 0x5c || unit === 0x25 || unit === 0x26) {
        const escape = escapeAt(text, at);
        if (escape !== null) {
          for (const character of escape.text) put(character.codePointAt(0)!, at, into);
          at += escape.length;
          continue;
        }
      }
      if (unit > SPACE && unit !== 0x7f) {
        if (unit >= 0x41 && unit <= 0x5a) into.unit(unit | 0x20, at);
        // As forms write spaces: between two letters only.
        else if (unit === 0x2b && isLetter(text.charCodeAt(at - 1)) && isLetter(text.charCodeAt(at + 1))) gap(SPACE, at, into);
        else into.unit(unit, at);
      } else gap(unit === SPACE ? SPACE : WIDE_GAP, at, into);
      at++;
      continue;
    }
    const codePoint = text.codePointAt(at)!;
    put(codePoint, at, into);
    at += codePoint >= 0x10000 ? 2 : 1;
  }
}

function put(codePoint: number, at: number, into: Written): void {
  // Tag characters spell ASCII that nobody sees.
  if (codePoint >= 0xe0020 && codePoint <= 0xe007e) {
    put(codePoint - 0xe0000, at, into);
    return;
  }
  const folded = foldedCharacter(codePoint);
  for (let i = 0; i < folded.length; i++) {
    const unit = folded.charCodeAt(i);
    if (unit === SPACE) gap(codePoint === 0x0a ? WIDE_GAP : SPACE, at, into);
    else into.unit(unit, at);
  }
}

function gap(kind: number, at: number, into: Written): void {
  const last = into.last();
  if (last === WIDE_GAP) return;
  if (last === SPACE) into.units[into.length - 1] = WIDE_GAP;
  else into.unit(kind, at);
}
