import { isDigit, isWord } from './characters.ts';
import type { DigitRuns } from './digits.ts';
import type { Hit } from './types.ts';

/** First digits (from, to) and lengths of the networks that give out cards. */
const networks: readonly (readonly [from: number, to: number, shortest: number, longest: number])[] = [
  [4, 4, 13, 19], // Visa: 13, 16, 19
  [51, 55, 16, 16], [2221, 2720, 16, 16], // Mastercard
  [34, 34, 15, 15], [37, 37, 15, 15], // American Express
  [6011, 6011, 16, 19], [644, 649, 16, 19], [65, 65, 16, 19], // Discover, RuPay
  [62, 62, 16, 19], [81, 81, 16, 19], // UnionPay
  [3528, 3589, 16, 19], // JCB
  [300, 305, 14, 19], [3095, 3095, 14, 19], [36, 36, 14, 19], [38, 39, 14, 19], // Diners Club
  [2200, 2204, 16, 19], // Mir
  [5018, 5018, 13, 19], [5020, 5020, 13, 19], [5038, 5038, 13, 19], [5893, 5893, 13, 19], [6304, 6304, 13, 19], [6759, 6759, 13, 19], [6761, 6763, 13, 19], // Maestro
  [60, 60, 16, 16], [508, 508, 16, 16], [82, 82, 16, 16], // RuPay
  [9792, 9792, 16, 16], // Troy
];

/** How the numbers are printed on cards. */
const printed: ReadonlySet<string> = new Set(['4-4-4-4', '4-4-4-4-3', '4-6-5', '4-6-4', '4-4-4-1', '4-3-3-3', '4-4-5', '4-4-4-2', '6-13', '4-4-4-3', '8-8', '4-5-6', '4-4-4-4-1', '4-4-4-4-2']);

/** Card numbers: 13 to 19 digits in one piece or in groups, that begin as a network's do and have the right check digit (ISO/IEC 7812). */
export function findCreditCards(runs: DigitRuns, found: (hit: Hit) => void): void {
  for (let run = 0; run < runs.count; run++) {
    const last = cardFrom(runs, run);
    if (last < 0) continue;
    found({ type: 'credit_card', start: runs.start(run), end: runs.end(last) });
    run = last;
  }
}

/** The run with which a card that begins at this one ends; negative when none begins here. */
function cardFrom(runs: DigitRuns, first: number): number {
  if (runs.length(first) >= 13) return isCard(runs, first, first, '') ? first : -1;
  const separator = runs.gap(first);
  if (separator !== ' ' && separator !== '-') return -1;
  let shape = String(runs.length(first));
  for (let last = first + 1, digits = runs.length(first); last < first + 7 && runs.gap(last - 1) === separator; last++) {
    digits += runs.length(last);
    if (digits > 19) break;
    shape += `-${runs.length(last)}`;
    if (digits < 13) continue;
    const all = runs.gap(first - 1) !== separator && runs.gap(last) !== separator;
    if (!printed.has(shape) && !(all && !shape.includes('1'))) continue;
    // A dash that goes on makes it a longer number; a space may only be followed by something else, such as an expiry date.
    if (separator === '-' && !all) continue;
    if (isCard(runs, first, last, separator)) return last;
  }
  return -1;
}

function isCard(runs: DigitRuns, first: number, last: number, separator: string): boolean {
  const digits = runs.digits(first, last);
  return digits.length <= 19 && standsAlone(runs.text, runs.start(first), runs.end(last), separator) && ofNetwork(digits) && hasCheckDigit(digits);
}

function ofNetwork(digits: string): boolean {
  return networks.some(([from, to, shortest, longest]) => {
    if (digits.length < shortest || digits.length > longest) return false;
    const start = Number(digits.slice(0, String(from).length));
    return start >= from && start <= to && !(from === 4 && ![13, 16, 18, 19].includes(digits.length));
  });
}

/** Luhn's formula. A number of one digit only passes it, too, and is none. */
function hasCheckDigit(digits: string): boolean {
  let sum = 0;
  let same = true;
  for (let i = 0; i < digits.length; i++) {
    const digit = digits.charCodeAt(digits.length - 1 - i) - 0x30;
    same &&= digits[i] === digits[0];
    sum += i % 2 === 0 ? digit : digit > 4 ? digit * 2 - 9 : digit * 2;
  }
  return sum % 10 === 0 && !same;
}

function standsAlone(text: string, start: number, end: number, separator: string): boolean {
  const [before, after] = [text.charCodeAt(start - 1), text.charCodeAt(end)];
  if (isWord(before) || before === 0x5f || isWord(after) || after === 0x5f) return false;
  // A fraction, or a part of one.
  if ((before === 0x2e || before === 0x2c) && isDigit(text.charCodeAt(start - 2))) return false;
  if ((after === 0x2e || after === 0x2c) && isDigit(text.charCodeAt(end + 1)) && separator === '') return false;
  return !(before === 0x2d && isDigit(text.charCodeAt(start - 2))) && !(after === 0x2d && isWord(text.charCodeAt(end + 1)));
}
