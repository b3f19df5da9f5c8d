import { isLetter, isUpper, textBefore } from './characters.ts';
import { ambiguousGivenNames } from './names/ambiguous.ts';
import { familyNames } from './names/family.ts';
import { givenNames } from './names/given.ts';
import type { Hit } from './types.ts';

interface Word {
  readonly text: string;
  readonly start: number;
  readonly end: number;
}

const titles: ReadonlySet<string> = new Set(['Mr', 'Mrs', 'Ms', 'Miss', 'Dr', 'Prof', 'Professor', 'Herr', 'Herrn', 'Frau', 'Mme', 'Mlle', 'Monsieur', 'Madame', 'Señor', 'Señora', 'Sr', 'Sra', 'Signor', 'Signora', 'Mx', 'Sir', 'Dame', 'Rev', 'Hon']);
const particles: ReadonlySet<string> = new Set(['van', 'von', 'de', 'der', 'den', 'del', 'della', 'di', 'da', 'dos', 'du', 'la', 'le', 'ten', 'ter', 'bin', 'ibn', 'al', 'el', 'zu', 'zur', 'y', 'af', 'av']);
/** Fields that hold nothing but a name of a person, or a part of one. */
const field = /(?:full|first|last|middle|given|family|sur|maiden|patient|customer|client|employee|contact|applicant|cardholder|account_?holder|beneficiary|recipient|passenger|guest|student|author|sender|user|display|legal|holder|emergency_contact|spouse|manager|owner|doctor|physician|buyer|seller|tenant|insured|member|nominee)[ _-]?(?:full[ _-]?)?name["']?\s{0,2}[:=]\s{0,2}["']?$|(?:\b|_)(?:surname|forename|patient|attn|attention|cardholder|signed|name der person)["']?\s{0,2}[:=]\s{0,2}["']?$/i;
/** A field that may hold the name of anything: what is in it must also look like a person's. */
const announced = /(?:my name is|name is|i am|i'm|this is|named|called|signed by|dear|hi|hello|hey|sincerely,|regards,|best,|cheers,|thanks,|ich heiße|ich bin|mein name ist|je m'appelle|me llamo|liebe|lieber|sehr geehrter|sehr geehrte|cher|chère|contact|spoke with|met with|meeting with|signed|by|from|to|for|with|and|ask|cc)[:,]?\s{1,2}$/i;
const surely = /(?:my name is|her name is|his name is|their name is|ich heiße|mein name ist|je m'appelle|me llamo|signed by|spoke with|met with|meeting with|sehr geehrter herr|sehr geehrte frau|liebe|lieber|sincerely,|regards,|yours,|dear)\s{1,2}$/i;
/** The last words of those phrases: a cheap look before the expensive one. */
const surelyLast: ReadonlySet<string> = new Set(['is', 'heiße', "m'appelle", 'llamo', 'by', 'with', 'herr', 'frau', 'liebe', 'lieber', 'sincerely,', 'regards,', 'yours,', 'dear']);
const notNames: ReadonlySet<string> = new Set('The This That These Those And But Or If When Where What Who Why How Please Thanks Thank Hello Dear Street Avenue Road University College Hospital Bank Inc Ltd Corp LLC GmbH Company Group Airport Station Park School Church Museum Hotel Team Support Sir Madam All Everyone Customer Customers User Users Admin Sales Service Services Act Theorem Algorithm Award Prize Institute Foundation Project Server Cloud Studio Code Script Model Test Data Api Http City County State River Lake Mountain Island Bay Beach Valley Airlines Times Journal Press Center Centre House Building Tower Bridge Square Drive Lane Boulevard Court Place Way Motors Systems Software Technologies Framework Library Protocol Effect Syndrome Disease Law Republic Kingdom January February March April May June July August September October November December Monday Tuesday Wednesday Thursday Friday Saturday Sunday Day Week Month Year Christmas Hiring Recruiting Team Board Ave Blvd St Rd'.split(' '));

/**
 * Names of people, where something says that they are: a title, a field or a phrase that announces one, or a given name from the list
 * with another name behind it. A name alone, without any of these, is not found.
 */
export function findPersonNames(text: string, found: (hit: Hit) => void): void {
  for (let at = 0; at < text.length; ) {
    if (!isUpper(text.charCodeAt(at)) || isJoined(text, at)) {
      at++;
      continue;
    }
    const word = wordAt(text, at);
    const hit = nameFrom(text, word);
    if (hit !== null) found({ type: 'person_name', start: hit.start, end: hit.end });
    at = hit?.end ?? word.end;
  }
}

function nameFrom(text: string, first: Word): { start: number; end: number } | null {
  if (titles.has(first.text)) return titled(text, first);
  const known = givenNames.has(first.text) || (first.text.includes('-') && givenNames.has(first.text.split('-')[0]!));
  const ambiguous = ambiguousGivenNames.has(first.text);
  const lead = text.slice(Math.max(0, first.start - 48), first.start);
  const inField = /[:=]\s{0,2}["']?$/.test(lead.slice(-4)) && field.test(lead);
  const sure = inField || (surelyLast.has(wordBefore(lead)) && surely.test(lead));
  // Most words with a capital end here, so that what follows may cost more.
  if (!(sure || known || ambiguous || familyNames.has(first.text)) || !looksLikeName(first.text)) return null;
  const words = following(text, first);
  const last = words.at(-1)!;
  const rest = words.slice(1).filter(({ text }) => text.length > 1);
  const followedByOther = notNames.has(nextWord(text, last.end));
  if (words.some(({ text }) => notNames.has(text)) || (followedByOther && !sure)) return null;
  const whole = { start: first.start, end: last.end };
  if (sure && (known || ambiguous || rest.length > 0 || familyNames.has(first.text) || inField)) return whole;
  if (rest.length === 0) return announced.test(lead) && known && /(?:dear|hi|hello|hey|i am|i'm|this is|named)[:,]?\s{1,2}$/i.test(lead) ? whole : null;
  const family = rest.some(({ text }) => familyNames.has(text) || familyNames.has(text.split('-').at(-1)!));
  if (known) return whole;
  if (ambiguous && (family || announced.test(lead))) return whole;
  return family && familyNames.has(first.text) && announced.test(lead) && givenNames.has(last.text) ? whole : inverted(text, first);
}

/** `Doe, Jane`, as lists have it. */
function inverted(text: string, first: Word): { start: number; end: number } | null {
  if (!familyNames.has(first.text) || text[first.end] !== ',' || text[first.end + 1] !== ' ' || !isUpper(text.charCodeAt(first.end + 2))) return null;
  const given = wordAt(text, first.end + 2);
  return givenNames.has(given.text) ? { start: first.start, end: given.end } : null;
}

/** The title itself is no name: only what follows it. */
function titled(text: string, title: Word): { start: number; end: number } | null {
  let at = title.end;
  if (text[at] === '.') at++;
  if (text[at] === ' ' && isUpper(text.charCodeAt(at + 1))) at++;
  else return null;
  let first = wordAt(text, at);
  if (titles.has(first.text) || first.text === 'med') {
    const next = titled(text, first);
    if (next !== null) return next;
    first = wordAt(text, at);
  }
  if (!looksLikeName(first.text) || notNames.has(first.text)) return null;
  const words = following(text, first).filter(({ text }) => !notNames.has(text));
  return { start: first.start, end: words.at(-1)!.end };
}

/** A name and what belongs to it: middle initials, particles, up to three more names on the same line. */
function following(text: string, first: Word): Word[] {
  const words = [first];
  let end = first.end;
  for (let names = 0; names < 3; ) {
    let at = end;
    if (text[at] === '.' && words.at(-1)!.text.length === 1) at++;
    if (text[at] !== ' ' || text[at + 1] === ' ') break;
    at++;
    let word = wordAt(text, at);
    for (let i = 0; i < 2 && particles.has(word.text) && text[word.end] === ' '; i++) word = wordAt(text, word.end + 1);
    if (!isUpper(text.charCodeAt(word.start)) || !(looksLikeName(word.text) || word.text.length === 1) || titles.has(word.text)) break;
    const next = word.end + (text[word.end] === '.' ? 2 : 1);
    if (word.text.length === 1 && !isUpper(text.charCodeAt(next)) && !particles.has(wordAt(text, next).text)) break;
    words.push(word);
    end = word.end;
    names++;
  }
  return words;
}

function wordAt(text: string, start: number): Word {
  let end = start;
  while (end < text.length && (isLetter(text.charCodeAt(end)) || ((text[end] === '-' || text[end] === "'" || text[end] === '’') && isLetter(text.charCodeAt(end + 1))))) end++;
  const word = text.slice(start, end);
  return word.endsWith("'s") || word.endsWith('’s') ? { text: word.slice(0, -2), start, end: end - 2 } : { text: word, start, end: Math.max(end, start + 1) };
}

/** The word at the end of a text, in small letters, before one or two blanks. */
function wordBefore(lead: string): string {
  const end = lead.trimEnd().length;
  if (end === lead.length || lead.length - end > 2) return '';
  let start = end;
  while (start > 0 && end - start < 12 && !/\s/.test(lead[start - 1]!)) start--;
  return lead.slice(start, end).toLowerCase();
}

function nextWord(text: string, at: number): string {
  return text[at] === ' ' ? wordAt(text, at + 1).text : '';
}

/** One capital, then small letters, also after a hyphen, an apostrophe or `Mc`. */
function looksLikeName(word: string): boolean {
  if (word.length < 2 || word.length > 30) return false;
  return /^\p{Lu}[\p{Ll}]+(?:\p{Lu}\p{Ll}+)?(?:[-'’]\p{L}\p{Ll}*)?$/u.test(word) || /^\p{Lu}['’]\p{Lu}\p{Ll}+$/u.test(word);
}

/** Within an identifier, a path or a name of a domain. */
function isJoined(text: string, at: number): boolean {
  const before = text.charCodeAt(at - 1);
  return isLetter(before) || /[\d_\-./\\@#$&]/.test(text[at - 1] ?? '') || textBefore(text, at, 3) === '://';
}
