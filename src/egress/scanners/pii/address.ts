import { isDigit, isLetter, isWord, textBefore } from './characters.ts';
import type { DigitRuns } from './digits.ts';
import type { Hit } from './types.ts';

const suffix = '(?:Street|St|Avenue|Ave|Av|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Ct|Circle|Cir|Place|Pl|Terrace|Ter|Trail|Trl|Parkway|Pkwy|Highway|Hwy|Square|Sq|Way|Loop|Alley|Plaza|Crescent|Cres|Close|Gardens|Grove|Mews|Row|Walk|Hill|Broadway|Turnpike|Tpke|Expressway|Esplanade|Quay|Wharf)';
const word = "(?:(?:[NSEW]{1,2}\\.?|\\d{1,3}(?:st|nd|rd|th)|Mc[A-Z][a-z]{1,20}|(?:St|Mt|Ft)\\.|[A-Z][A-Za-z'’]{0,24})[ ])";
const states = '(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]|PR|Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska|Nevada|New Hampshire|New Jersey|New Mexico|New York|North Carolina|North Dakota|Ohio|Oklahoma|Oregon|Pennsylvania|Rhode Island|South Carolina|South Dakota|Tennessee|Texas|Utah|Vermont|Virginia|Washington|West Virginia|Wisconsin|Wyoming)';
const town = "[A-Z][A-Za-z.'’-]{1,24}(?:[ ][A-Z][A-Za-z.'’-]{1,24}){0,3}";
const ukPostcode = '[A-Z]{1,2}\\d[A-Z\\d]?[ ]?\\d[A-Z]{2}';
const unit = '(?:,?[ ](?:Apt|Apartment|Suite|Ste|Unit|Floor|Fl|Room|Rm|Flat|#)\\.?[ ]?#?[A-Za-z0-9-]{1,6})?';
const comma = '(?:,[ ]?|[ ]|,?\\n)';
/** After a number and a space: words and a kind of street, then perhaps a unit, a town, a state and a code. */
const english = new RegExp(`^${word}{1,5}?(?<kind>${suffix})\\b\\.?(?:[ ][NSEW]{1,2}\\b)?${unit}(?<town>${comma}${town})?(?:${comma}(?:${states}\\b\\.?(?:[ ]\\d{5}(?:-\\d{4})?)?|${ukPostcode}\\b))?(?:${comma}(?:USA|United States|UK|United Kingdom)\\b)?`);
const box = new RegExp(`^(?:P\\.?[ ]?O\\.?[ ]?Box|Post Office Box|Postfach|B\\.?P\\.?)[ ]#?\\d{1,6}(?:${comma}${town})?(?:${comma}${states}\\b[ ]\\d{5}(?:-\\d{4})?)?`);
const frenchKind = '(?:rue|avenue|av\\.|boulevard|bd|place|allée|allee|chemin|impasse|quai|route|cours|passage|square|ruelle|faubourg)';
const frenchWord = "(?:(?:d['’]|l['’])?[\\p{L}\\d][\\p{L}\\d'’.-]{0,24})";
/** After a number: `bis`, a kind of street, its name, and perhaps a code and a town. */
const french = new RegExp(`^(?:[ ]?(?:bis|ter|quater)\\b)?,?[ ]${frenchKind}[ ](?:(?:de|du|des|de la|de l['’]|la|le|les)[ ]?)?${frenchWord}(?:[ -]${frenchWord}){0,4}?(?=$|[,;.\\n"<)]|[ ]\\d{5})(?:(?:,[ ]?|[ ]|\\n)\\d{5}[ ]\\p{Lu}[\\p{L}'’-]{1,24}(?:[ -]\\p{Lu}[\\p{L}'’-]{1,24}){0,3})?`, 'iu');
/** The end of a German street's name, before its number. */
const germanStreet = /(?:(?:\p{Lu}[\p{L}-]{1,30}(?:straße|strasse|str\.|weg|platz|allee|gasse|ring|damm|ufer|steig|chaussee|hof|markt|berg|kamp|stieg))|(?:(?:Am|An der|Auf der|Im|In der|Zum|Zur|Unter den|Alte|Neue|Große|Kleine|\p{Lu}[\p{L}-]{1,24})[ ])(?:\p{Lu}[\p{L}-]{1,24}[ ])?(?:Straße|Strasse|Str\.|Weg|Platz|Allee|Gasse|Ring|Damm|Ufer|Steig|Linden))[ ]$/u;
/** The last two letters of those kinds of street: a cheap look before the expensive one. */
const germanEnds: ReadonlySet<string> = new Set(['ße', 'se', 'r.', 'eg', 'tz', 'ee', 'ng', 'mm', 'er', 'ig', 'of', 'kt', 'rg', 'mp', 'en']);
/** A street without a kind, which only the town behind it tells. */
const germanPlace = /(?:Am|An der|Auf dem|Auf der|Im|In der|In den|Zum|Zur|Unter den|Vor dem)[ ]\p{Lu}[\p{L}-]{1,24}[ ]$/u;
const germanTown = /^[ ]?[a-h]?(?:,[ ]?|\n)(?:D-)?\d{5}[ ]\p{Lu}/u;
const germanRest = /^(?:[ ]?[a-h]\b)?(?:[-/]\d{1,4}[a-h]?)?(?:(?:,[ ]?|\n|[ ])(?:D-)?\d{4,5}[ ]\p{Lu}[\p{L}-]{1,24}(?:(?:[ ]|[ ]am[ ])\p{Lu}[\p{L}-]{1,24}){0,2})?/u;
/** Words before a number that counts something, and before a year. */
const counted = /(?:^|[^\p{L}])(?:chapter|chap\.|page|pages|section|line|error|route|windows|top|version|step|figure|fig\.|table|level|season|episode|volume|vol\.|part|room|the|first|last|over|about|only|all|these|those|another|exit|gate|act|scene|book|lesson|day|week|bus|tram|flight|highway|interstate)[ ]$/u;
const dated = /(?:^|[^\p{L}])(?:in|since|until|by|of|during|before|after|around|circa|early|late|year|jan\w{0,6}|feb\w{0,6}|mar\w{0,3}|apr\w{0,3}|may|june?|july?|aug\w{0,4}|sep\w{0,7}|oct\w{0,5}|nov\w{0,6}|dec\w{0,6})[ ]$/u;
const longest = 240;

/**
 * Postal addresses of the USA, the United Kingdom, Germany and France, by what their streets are called: a number and a street that ends in a
 * kind of street (`12 Elm Street`), a German street before its number, a French kind after it, and post office boxes. Town and code belong to
 * them where they follow. Streets with names alone (`10 Downing`) are not found.
 */
export function findAddresses(runs: DigitRuns, found: (hit: Hit) => void): void {
  const { text } = runs;
  for (let run = 0, from = 0; run < runs.count; run++) {
    const [start, end] = [runs.start(run), runs.end(run)];
    if (start < from || end - start > 6) continue;
    const hit = german(text, start, end) ?? numberFirst(text, start, end) ?? postBox(text, start);
    if (hit === null || hit.start < from) continue;
    found({ type: 'address', ...hit });
    from = hit.end;
  }
}

function numberFirst(text: string, start: number, end: number): { start: number; end: number } | null {
  const before = text.charCodeAt(start - 1);
  if (isWord(before) || before === 0x5f || before === 0x2f || before === 0x24 || ((before === 0x2e || before === 0x2c || before === 0x3a || before === 0x2d) && isDigit(text.charCodeAt(start - 2)))) return null;
  const lead = textBefore(text, start, 24);
  if (counted.test(lead) || (/^(?:19|20)\d\d$/.test(text.slice(start, end)) && dated.test(lead))) return null;
  let after = end;
  if (/^[A-Z]?(?:-\d{1,4})?[ ]/.test(text.slice(after, after + 7))) while (text[after] !== ' ') after++;
  const rest = text.slice(after, after + longest);
  if (rest[0] === ' ') {
    const match = english.exec(rest.slice(1));
    // `3 Pro Drive units`: what is also an ordinary word ends an address only where the phrase ends.
    const goesOn = match !== null && match.groups!['town'] === undefined && weakKinds.has(match.groups!['kind']!) && /^[ ]\p{Ll}/u.test(rest.slice(1 + match[0].length));
    if (match !== null && !goesOn) return { start, end: after + 1 + trimmed(match[0]) };
  }
  const match = french.exec(text.slice(end, end + longest));
  return match === null ? null : { start, end: end + match[0].length };
}

const weakKinds: ReadonlySet<string> = new Set(['Dr', 'Drive', 'Trail', 'Quay', 'Alley', 'Grove', 'Gardens', 'Hill', 'Row', 'Way', 'Close', 'Walk', 'Loop', 'Place', 'Square', 'Court', 'Circle', 'Plaza', 'Pl']);

/** Without a last word that only ends a sentence. */
function trimmed(match: string): number {
  return match.replace(/[ ,.\n]+$/, '').length;
}

function german(text: string, start: number, end: number): { start: number; end: number } | null {
  if (text[start - 1] !== ' ' || end - start > 4 || !isLetter(text.charCodeAt(start - 2)) && text[start - 2] !== '.') return null;
  if (!germanEnds.has(text.slice(start - 3, start - 1).toLowerCase()) && !germanTown.test(text.slice(end, end + 80))) return null;
  const lead = text.slice(Math.max(0, start - 72), start);
  const street = germanStreet.exec(lead) ?? (germanTown.test(text.slice(end, end + 80)) ? germanPlace.exec(lead) : null);
  if (street === null || isLetter(lead.charCodeAt(street.index - 1))) return null;
  const rest = germanRest.exec(text.slice(end, end + 80))!;
  const stop = end + rest[0].length;
  return isWord(text.charCodeAt(stop)) ? null : { start: start - (lead.length - street.index), end: stop };
}

function postBox(text: string, start: number): { start: number; end: number } | null {
  const lead = /(?:P\.?[ ]?O\.?[ ]?Box|Post Office Box|Postfach|B\.?P\.?)[ ]#?$/i.exec(text.slice(Math.max(0, start - 18), start));
  if (lead === null) return null;
  const from = start - lead[0].length;
  if (isWord(text.charCodeAt(from - 1))) return null;
  const match = box.exec(text.slice(from, from + longest));
  return { start: from, end: match === null ? start + /^\d{1,6}/.exec(text.slice(start, start + 6))![0].length : from + trimmed(match[0]) };
}
