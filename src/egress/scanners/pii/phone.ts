import { type CountryCode, parsePhoneNumberFromString } from 'libphonenumber-js/max';
import { isDigit, isWord, textBefore } from './characters.ts';
import type { DigitRuns } from './digits.ts';
import type { Hit } from './types.ts';

export interface PhoneOptions {
  /** Where numbers without a country code are from. */
  readonly region: CountryCode;
}

/** Words and names of fields that announce a number. */
const cue = /(?:phone|\bph\b|\btel\b|\btele|[_."]tel["_]|telefon|téléphone|mobile|mobil\b|\bmob\b|\bcell|fax|\bcall(?:ed|ing)?\b|\bdial|whatsapp|\bsms\b|\btext(?:ed)? (?:me|him|her|us|them)|msisdn|reach (?:me|him|her|us|them)|handy|hotline|contact_?n(?:o|umber)|ring (?:me|us))[^\n;{}]{0,28}$/;
/** Words that announce another kind of number. */
const otherwise = /(?:isbn|issn|imei|order|invoice|tracking|serial|account|acct|iban|sku|ticket|\bref\b|reference|part|upc|ean|gtin|receipt|batch|model|\bid|timestamp|version|\bpo\b|vin|case|doi|lot)["']?[ ]{0,2}(?:no\.?|number|id|code)?["']?[ .:=#"'()-]{0,5}$/;
/** Where a number of a field for numbers may be from when it is not from the region set. */
const elsewhere: readonly CountryCode[] = ['US', 'GB', 'DE', 'FR', 'IT', 'ES', 'NL', 'IN', 'AU', 'BR', 'JP', 'CH', 'PL', 'MX'];
const longestNumber = 40;
const between = /^(?:[ .\-/]|[ ]?\([ ]?|\)[ ]?|\)[-.]| - |  )$/;
const plus = 0x2b;

/**
 * Telephone numbers that a country's numbering plan knows: with a country code, in the usual groups, or after a word such as "phone". North
 * American ones with the area code 555 are found, too, although nobody has them.
 */
export function findPhones(runs: DigitRuns, { region }: PhoneOptions, found: (hit: Hit) => void): void {
  for (let run = 0; run < runs.count; ) {
    let last = run;
    let digits = runs.length(run);
    for (let gap = runs.gap(last); gap !== null && between.test(gap); gap = runs.gap(last)) {
      const more = runs.length(last + 1);
      if (digits + more > 15 || runs.end(last + 1) - runs.start(run) > longestNumber) break;
      digits += more;
      last++;
    }
    const taken = digits >= 7 && digits <= 15 ? phoneAmong(runs, run, last, region) : null;
    if (taken === null) run++;
    else {
      found({ type: 'phone', start: taken.start, end: taken.end });
      run = taken.last + 1;
    }
  }
}

interface Taken {
  readonly start: number;
  readonly end: number;
  readonly last: number;
}

/** The longest number that begins at the first run and ends at the last one or before. */
function phoneAmong(runs: DigitRuns, first: number, last: number, region: CountryCode): Taken | null {
  const { text } = runs;
  let start = runs.start(first);
  if (text[start - 1] === '(') start--;
  const international = text.charCodeAt(start - 1) === plus || (text[start - 1] === '(' && text.charCodeAt(start - 2) === plus);
  if (international) start = text.charCodeAt(start - 1) === plus ? start - 1 : start - 2;
  const before = text.charCodeAt(start - 1);
  if (isWord(before) || before === 0x5f || (!international && (joins(before) || before === 0x3a) && (before === 0x3a ? isDigit : isWord)(text.charCodeAt(start - 2)))) return null;
  const lead = textBefore(text, start, 64);
  const announced = cue.test(lead);
  if (!announced && !international && (otherwise.test(lead) || /[$€£¥#][ ]?$/.test(lead))) return null;
  for (let end = last; end >= first && end >= last - 3; end--) {
    const stop = runs.end(end);
    const after = text.charCodeAt(stop);
    if (isWord(after) && !isExtension(text, stop)) continue;
    if (after === 0x5f || after === 0x25 || (joins(after) && isWord(text.charCodeAt(stop + 1)))) continue;
    if (isPhone(runs, first, end, { international, announced, region, written: text.slice(start, stop) })) return { start, end: extensionEnd(text, stop), last: end };
  }
  return null;
}

interface Seen {
  readonly international: boolean;
  readonly announced: boolean;
  readonly region: CountryCode;
  readonly written: string;
}

function isPhone(runs: DigitRuns, first: number, last: number, { international, announced, region, written }: Seen): boolean {
  const digits = runs.digits(first, last);
  if (digits.length < 7 || digits.length > 15) return false;
  const lengths: number[] = [];
  for (let run = first; run <= last; run++) lengths.push(runs.length(run));
  // North American numbers are common and have one form: asking for their area codes is most of what a stream costs.
  if (international && /^1[2-9]\d{2}[2-9]\d{6}$/.test(digits)) return true;
  if (international) return valid(`+${digits}`, region) || (announced && digits.length >= 10) || /^1555\d{7}$/.test(digits);
  const shape = lengths.join('-');
  if (isDate(digits, lengths)) return false;
  const american = region === 'US' || region === 'CA';
  if (american && (shape === '3-3-4' || shape === '1-3-3-4') && (shape !== '1-3-3-4' || digits[0] === '1')) {
    const area = digits.slice(-10, -7);
    return announced || area === '555' || (area[0]! >= '2' && (valid(digits, region) || digits.slice(-7, -4) === '555'));
  }
  if (announced) return (digits.length >= 9 && (valid(digits, region) || elsewhere.some((other) => valid(digits, other)))) || (american && (shape === '10' || shape === '3-4' || shape === '3-7' || shape === '6-4'));
  // Without a word that says so, the number has to look like one: in groups, and of the length of the region's.
  if (american) return /^\(\d{3}\)/.test(written) && (shape === '3-7' || shape === '3-3-4') && valid(digits, region);
  return lengths.length >= 2 && digits[0] === '0' && lengths.every((length) => length > 1) && valid(digits, region);
}

function valid(number: string, region: CountryCode): boolean {
  return parsePhoneNumberFromString(number, { defaultCountry: region, extract: false })?.isValid() === true;
}

/** Year, month and day in some order, perhaps with an hour. */
function isDate(digits: string, lengths: readonly number[]): boolean {
  const shape = lengths.join('-');
  if (/^4-2-2(?:-|$)/.test(shape)) return /^(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])/.test(digits);
  return /^[12]-[12]-4(?:-|$)/.test(shape) || shape === '8' || shape === '2-2-2-2' && /^(?:19|20)/.test(digits);
}

function joins(unit: number): boolean {
  return unit === 0x2d || unit === 0x2e || unit === 0x2f;
}

const extension = /^(?:,? ?(?:ext|x|extension|durchwahl)\.? ?:?#?)\d{1,6}(?!\w)/i;

function isExtension(text: string, at: number): boolean {
  return extension.test(text.slice(at, at + 24));
}

function extensionEnd(text: string, at: number): number {
  const match = isDigit(text.charCodeAt(at)) ? null : extension.exec(text.slice(at, at + 24));
  return at + (match?.[0].length ?? 0);
}
