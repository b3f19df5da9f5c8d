import { segmented } from './vocabulary.ts';
import { isLetter, SPACE, WIDE_GAP, Written } from './written.ts';

/** Fewer letters with gaps between them are initials or a list. */
const FEWEST_SPACED = 5;
const MOST_SPACED = 400;
/** A word as long as this is looked at for words written without gaps. */
const GLUED = 16;

/** What stands between letters that are to be read as words: "i-g-n-o-r-e". */
const separators = new Set([...' .-_*|/,·~+:;'].map((sign) => sign.charCodeAt(0)));

/** "i g n o r e" becomes "ignore", and letters without any gap become words where known words cover them. */
export function joinSpacedLetters(from: Written): Written {
  const into = new Written(from.length, from.length * 2 + 16);
  for (let at = 0; at < from.length; ) {
    const unit = from.units[at]!;
    if (!isLetter(unit) || (at > 0 && isLetter(from.units[at - 1]!))) {
      into.unit(unit, from.origins[at++]!);
      continue;
    }
    let end = at + 1;
    while (end < from.length && isLetter(from.units[end]!)) end++;
    if (end - at === 1) {
      const letters = spacedLetters(from, at);
      if (letters.length >= FEWEST_SPACED) {
        writeWords(from, letters, into);
        at = letters.at(-1)! + 1;
        continue;
      }
    } else if (end - at >= GLUED && end - at <= MOST_SPACED) {
      writeWords(
        from,
        Array.from({ length: end - at }, (_, i) => at + i),
        into,
      );
      at = end;
      continue;
    }
    for (; at < end; at++) into.unit(from.units[at]!, from.origins[at]!);
  }
  return into;
}

/** Places of single letters with the same separator between each two; wide gaps between words are in it as places, too. */
function spacedLetters(from: Written, at: number): number[] {
  const letters = [at];
  const separator = from.units[at + 1]!;
  if (at + 2 >= from.length || !separators.has(separator)) return letters;
  let last = at;
  while (letters.length < MOST_SPACED) {
    const between = from.units[last + 1]!;
    const isGap = separator === SPACE ? between === WIDE_GAP : between === SPACE || between === WIDE_GAP;
    const next = last + 2;
    if (next >= from.length || (between !== separator && !isGap) || !isLetter(from.units[next]!)) break;
    if (next + 1 < from.length && isLetter(from.units[next + 1]!)) break;
    if (isGap) letters.push(last + 1);
    letters.push(next);
    last = next;
  }
  return letters;
}

/** The letters at these places as words: divided at gaps, else by known words, else as one. */
function writeWords(from: Written, places: readonly number[], into: Written): void {
  const letterAt = (place: number): string => String.fromCharCode(from.units[place]!);
  for (let start = 0; start < places.length; ) {
    let end = start;
    while (end < places.length && isLetter(from.units[places[end]!]!)) end++;
    const run = places.slice(start, end);
    const letters = run.map(letterAt).join('');
    const words = run.length >= GLUED / 2 ? segmented(letters) : null;
    let letter = 0;
    for (const character of words ?? letters) {
      if (character === ' ') into.unit(SPACE, from.origins[run[letter]!]!);
      else into.unit(character.charCodeAt(0), from.origins[run[letter++]!]!);
    }
    if (end < places.length) into.unit(SPACE, from.origins[places[end]!]!);
    start = end + 1;
  }
}

const digitLetters = new Map(Object.entries({ 0: 'o', 1: 'i', 3: 'e', 4: 'a', 5: 's', 7: 't', '@': 'a', $: 's', '!': 'i' }).map(([sign, letter]) => [sign.charCodeAt(0), letter.charCodeAt(0)]));
const LONGEST_WORD = 32;

/** "1gn0r3" becomes "ignore": in words where such a sign stands between letters and letters are at least as many. A number with other digits stays. */
export function readDigitsAsLetters(written: Written): void {
  for (let at = 0; at < written.length; ) {
    let [end, letters, signs, inner, otherDigits] = [at, 0, 0, false, false];
    for (; end < written.length; end++) {
      const unit = written.units[end]!;
      if (isLetter(unit)) letters++;
      else if (digitLetters.has(unit)) {
        signs++;
        inner ||= end > at && isLetter(written.units[end - 1]!) && end + 1 < written.length && isLetter(written.units[end + 1]!);
      } else if (unit >= 0x30 && unit <= 0x39) otherDigits = true;
      else break;
    }
    if (signs > 0 && !otherDigits && inner && letters >= signs && end - at >= 4 && end - at <= LONGEST_WORD) {
      // A final "!" ends a sentence.
      for (let i = at; i < end; i++) if (i < end - 1 || written.units[i] !== 0x21) written.units[i] = digitLetters.get(written.units[i]!) ?? written.units[i]!;
    }
    at = end + 1;
  }
}
