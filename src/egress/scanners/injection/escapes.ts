/** What an escape sequence stands for: code points, and how many code units of the text it takes. */
export interface Escape {
  readonly text: string;
  readonly length: number;
}

const namedEntities: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'", nbsp: ' ', shy: '', lpar: '(', rpar: ')', colon: ':', period: '.', comma: ',', excl: '!', tab: ' ', newline: ' ' };
const controlEscapes: Readonly<Record<string, string>> = { n: ' ', r: ' ', t: ' ', f: ' ', b: ' ', '"': '"', "'": "'", '/': '/', '\\': '\\' };
/** How often an escape may have been escaped again. */
const DEEPEST = 3;
const utf8 = new TextDecoder('utf-8', { fatal: true });

/** The escape that begins at `at` (a backslash, percent sign or ampersand), or null when it is just that character. */
export function escapeAt(text: string, at: number): Escape | null {
  switch (text.charCodeAt(at)) {
    case 0x5c:
      return backslash(text, at);
    case 0x25:
      return percent(text, at);
    case 0x26:
      return entity(text, at);
    default:
      return null;
  }
}

function backslash(text: string, at: number): Escape | null {
  const kind = text[at + 1] ?? '';
  if (kind === 'u' || kind === 'x') {
    const braced = kind === 'u' && text[at + 2] === '{';
    if (braced) {
      const end = text.indexOf('}', at + 3);
      if (end < 0 || end - at > 9) return null;
      return codePoint(hexValue(text, at + 3, end), end + 1 - at);
    }
    const digits = kind === 'u' ? 4 : 2;
    return codePoint(hexValue(text, at + 2, at + 2 + digits), 2 + digits);
  }
  // A doubled backslash before a letter is JSON inside JSON: the inner escape comes out.
  if (kind === '\\' && controlEscapes[text[at + 2] ?? ''] === ' ') return { text: ' ', length: 3 };
  const control = controlEscapes[kind];
  return control === undefined ? null : { text: control, length: 2 };
}

/** A whole run of `%XX`, because one character may take several; escaped again, as `%25XX`, it is the same. */
function percent(text: string, at: number): Escape | null {
  const bytes: number[] = [];
  let end = at;
  while (text.charCodeAt(end) === 0x25 && bytes.length < 256) {
    let digits = end + 1;
    while (digits < end + 1 + DEEPEST * 2 && text.startsWith('25', digits) && hexValue(text, digits + 2, digits + 4) >= 0) digits += 2;
    const value = hexValue(text, digits, digits + 2);
    if (value < 0) break;
    bytes.push(value);
    end = digits + 2;
  }
  if (bytes.length === 0) return null;
  try {
    return { text: utf8.decode(Uint8Array.from(bytes)), length: end - at };
  } catch {
    return { text: ' ', length: 3 };
  }
}

/** Escaped again, as `&amp;#105;`, it is the same. */
function entity(text: string, first: number): Escape | null {
  let at = first;
  while (at < first + DEEPEST * 4 && text.startsWith('amp;', at + 1) && /[#\w]/.test(text[at + 5] ?? '')) at += 4;
  const found = entityAt(text, at);
  if (found !== null) return { text: found.text, length: found.length + at - first };
  return at === first ? null : { text: '&', length: at + 1 - first };
}

/** What follows the character at `at`, which is an ampersand or the end of an escaped one. */
function entityAt(text: string, at: number): Escape | null {
  // The longest that a browser reads without a semicolon is longer, and nobody writes it.
  let end = at + 1;
  while (end < at + 11 && /[#\w]/.test(text[end] ?? '')) end++;
  const name = text.slice(at + 1, end);
  const length = end - at + (text[end] === ';' ? 1 : 0);
  if (name.startsWith('#')) {
    const hex = /^#[xX]/.test(name);
    const digits = name.slice(hex ? 2 : 1);
    if (!(hex ? /^[\da-fA-F]+$/ : /^\d+$/).test(digits)) return null;
    return codePoint(Number.parseInt(digits, hex ? 16 : 10), length);
  }
  const known = text[end] === ';' ? namedEntities[name.toLowerCase()] : undefined;
  return known === undefined ? null : { text: known, length };
}

function codePoint(value: number, length: number): Escape | null {
  if (!(value >= 0 && value <= 0x10ffff)) return null;
  return { text: String.fromCodePoint(value), length };
}

/** Of the hexadecimal digits in [from, to), or -1. */
function hexValue(text: string, from: number, to: number): number {
  if (to > text.length || to <= from) return -1;
  let value = 0;
  for (let i = from; i < to; i++) {
    const digit = hexDigit(text.charCodeAt(i));
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

export function hexDigit(unit: number): number {
  if (unit >= 0x30 && unit <= 0x39) return unit - 0x30;
  const lower = unit | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}
