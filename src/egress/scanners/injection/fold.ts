/**
 * Letters of other scripts that look like Latin ones (a choice of Unicode's confusables, UTS #39, without what merely resembles):
 * each Latin letter with those that pass for it. What NFKD folds by itself (full width, mathematical, circled) is not listed.
 */
const lookalikes: Readonly<Record<string, string>> = {
  a: 'аɑαΑАᎪᗅꓮ∂',
  b: 'ЬВΒвᏴᗷꓐƄьɓ',
  c: 'сϲСϹᏟꓚⅽᴄ¢ƈ',
  d: 'ԁᏧᎠᗞꓓɗԀ',
  e: 'еҽΕЕᎬꓰєɛεЄ℮ҿ',
  f: 'ϝғꓝƒꞙϜ',
  g: 'ɡցԍԌᏀꓖǥ',
  h: 'һհΗНнᎻᕼꓧҺɦ',
  i: 'іıɩιІΙӏӀΪꙇꓲɪ',
  j: 'јϳЈᎫꓙɉ',
  k: 'κкΚКᏦꓗƙҟ',
  l: 'ⅼᏞꓡʟł',
  m: 'мΜМᎷꓟṃɱ',
  n: 'ոռΝꓠпɴηп',
  o: 'оοσօОΟՕ০ⲟᴏꓳөø',
  p: 'рρΡРᏢꓑƿ',
  q: 'ԛգԚզ',
  r: 'гᴦꓣᎡᖇɼ',
  s: 'ѕЅᏚꓢꜱʂ',
  t: 'тτΤТᎢꓔŧτ',
  u: 'υսᴜꓴʋսц',
  v: 'νѵѴᏙꓦᴠ',
  w: 'ԝѡԜᎳꓪᴡωш',
  x: 'хχΧХꓫ×ҳ',
  y: 'уүΥУҮꓬɣγ',
  z: 'ᴢΖᏃꓜƶ',
};

const folded = new Map<number, string>();
for (const [letter, others] of Object.entries(lookalikes)) for (const other of others) folded.set(other.codePointAt(0)!, letter);
// Squared and negative letters, and the letters that flags are made of.
for (const first of [0x1f130, 0x1f150, 0x1f170, 0x1f1e6]) for (let i = 0; i < 26; i++) folded.set(first + i, String.fromCharCode(97 + i));
for (const [sign, others] of [['"', '“”„‟«»'], ["'", '‘’‚‛`´ʼ′'], ['-', '‐‑‒–—―−'], ['/', '⁄∕'], ['.', '․。'], [':', '：ː∶']] as const)
  for (const other of others) folded.set(other.codePointAt(0)!, sign);

/** Of one character: more is cut, so that a letter like U+FDFA cannot multiply the text. */
const MOST_LETTERS = 4;

/** One entry per code unit, filled on first use; undefined = not seen yet. */
const seen: (string | undefined)[] = Array.from({ length: 0x10000 });

/** What a code point counts as: lower case, without accents, look-alikes as Latin; empty for what nobody sees; a space for any white space. */
export function foldedCharacter(codePoint: number): string {
  if (codePoint >= 0x10000) return foldOne(codePoint);
  return (seen[codePoint] ??= foldOne(codePoint));
}

function foldOne(codePoint: number): string {
  if (isInvisible(codePoint)) return '';
  const direct = folded.get(codePoint);
  if (direct !== undefined) return direct;
  const character = String.fromCodePoint(codePoint);
  if (/\s/u.test(character)) return ' ';
  // A control character or half of a pair separates like a space.
  if (codePoint < 0x20 || codePoint === 0x7f || (codePoint >= 0xd800 && codePoint <= 0xdfff)) return ' ';
  let plain = '';
  // Decomposed, then a look-alike's accents are gone as well: "ї" and "ё" read as "i" and "e".
  for (const part of character.normalize('NFKD').toLowerCase()) {
    if (plain.length >= MOST_LETTERS) break;
    if (/\p{Mn}/u.test(part)) continue;
    plain += /\s/u.test(part) ? ' ' : (folded.get(part.codePointAt(0)!) ?? part);
  }
  // Marks that carry the vowels of a script stay; accents over Latin, Greek and Cyrillic letters go.
  if (plain === '' && codePoint > 0x036f && !(codePoint >= 0x1ab0 && codePoint <= 0x1aff) && !(codePoint >= 0x1dc0 && codePoint <= 0x1dff) && !(codePoint >= 0x20d0 && codePoint <= 0x20ff) && !(codePoint >= 0xfe20 && codePoint <= 0xfe2f)) return character;
  return plain;
}

/** Zero-width characters, fillers, direction marks, tags and variation selectors: what a reader does not see and a model does. */
function isInvisible(codePoint: number): boolean {
  if (codePoint < 0xad) return false;
  return (
    codePoint === 0xad ||
    codePoint === 0x034f ||
    codePoint === 0x061c ||
    codePoint === 0x115f ||
    codePoint === 0x1160 ||
    codePoint === 0x17b4 ||
    codePoint === 0x17b5 ||
    (codePoint >= 0x180b && codePoint <= 0x180f) ||
    (codePoint >= 0x200b && codePoint <= 0x200f) ||
    (codePoint >= 0x202a && codePoint <= 0x202e) ||
    (codePoint >= 0x2060 && codePoint <= 0x206f) ||
    codePoint === 0x3164 ||
    (codePoint >= 0xfe00 && codePoint <= 0xfe0f) ||
    codePoint === 0xfeff ||
    codePoint === 0xffa0 ||
    (codePoint >= 0xfff9 && codePoint <= 0xfffb) ||
    (codePoint >= 0x1d173 && codePoint <= 0x1d17a) ||
    (codePoint >= 0xe0000 && codePoint <= 0xe0fff)
  );
}
