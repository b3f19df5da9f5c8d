import { isAsciiLetter, isDigit } from './characters.ts';
import { type KeyFormat, keyFormats } from './api-key-formats.ts';
import type { Hit } from './types.ts';

const longestToken = 4096;
const longestPem = 8000;
const [dash, dot, underscore, equals, colon] = [0x2d, 0x2e, 0x5f, 0x3d, 0x3a];

/**
 * Credentials: keys of providers by their formats, signed tokens (JWT), private keys in PEM, web hooks, and values that look random behind a
 * name that says they are secret (`api_key: …`, `Authorization: Bearer …`).
 */
export function findApiKeys(text: string, found: (hit: Hit) => void): void {
  findFormats(text, found);
  findPems(text, found);
  findNamed(text, found);
}

function findFormats(text: string, found: (hit: Hit) => void): void {
  for (let at = 0, within = false; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    const inToken = isAsciiLetter(unit) || isDigit(unit) || unit === underscore || unit === dash;
    if (inToken && !within) {
      const end = formatEnd(text, at, unit);
      if (end > 0) {
        found({ type: 'api_key', start: at, end });
        at = end - 1;
      }
    }
    within = inToken;
  }
}

/** Where the credential that begins here ends; 0 when none does. */
function formatEnd(text: string, at: number, unit: number): number {
  for (const format of keyFormats.get(unit) ?? []) {
    if (!text.startsWith(format.prefix, at)) continue;
    const end = runEnd(text, at + format.prefix.length, format);
    if (end > 0) return end;
  }
  if (unit === 0x65 && text.startsWith('eyJ', at)) return jwtEnd(text, at);
  if (unit === 0x68 && text.startsWith('https://hooks.slack.com/services/', at)) return at + /^[\w./:-]*/.exec(text.slice(at, at + 128))![0].length;
  if (isDigit(unit)) return botTokenEnd(text, at);
  return 0;
}

function runEnd(text: string, from: number, { alphabet, shortest, longest, prefix }: KeyFormat): number {
  let end = from;
  let [digits, letters] = [0, 0];
  while (end < text.length && end - from <= longest && inAlphabet(text.charCodeAt(end), alphabet)) {
    if (isDigit(text.charCodeAt(end))) digits++;
    else if (isAsciiLetter(text.charCodeAt(end))) letters++;
    end++;
  }
  while (end > from && !isAlnum(text.charCodeAt(end - 1))) end--;
  const size = end - from;
  if (size < shortest || size > longest || isAlnum(text.charCodeAt(end))) return 0;
  // `sk-learn-something-or-other` is words; with a longer prefix it is a key without digits.
  return letters > 0 && (digits > 0 || prefix.length > 4) && !isPlaceholder(text.slice(from, end)) ? end : 0;
}

function inAlphabet(unit: number, alphabet: KeyFormat['alphabet']): boolean {
  if (isDigit(unit)) return true;
  if (alphabet === 'hex') return (unit | 0x20) >= 0x61 && (unit | 0x20) <= 0x66;
  if (alphabet === 'upper') return unit >= 0x41 && unit <= 0x5a;
  return isAsciiLetter(unit) || (alphabet !== 'alnum' && (unit === underscore || unit === dash)) || (alphabet === 'dotted' && unit === dot);
}

/** Three parts in base64url of which the first is JSON that names an algorithm (RFC 7519). */
function jwtEnd(text: string, at: number): number {
  let end = at;
  const parts: number[] = [];
  while (end < text.length && end - at < longestToken) {
    const unit = text.charCodeAt(end);
    if (unit === dot) {
      if (parts.length === 2) break;
      parts.push(end);
    } else if (!isAlnum(unit) && unit !== underscore && unit !== dash) break;
    end++;
  }
  if (parts.length < 2 || end - at < 40) return 0;
  const head = Buffer.from(text.slice(at, parts[0]), 'base64url').toString('latin1');
  return /"(?:alg|typ|enc)"\s*:/.test(head.slice(0, 512)) ? end : 0;
}

/** `123456789:AA…` of Telegram. */
function botTokenEnd(text: string, at: number): number {
  const match = /^\d{8,10}:AA[\w-]{32,34}(?![\w-])/.exec(text.slice(at, at + 52));
  return match === null ? 0 : at + match[0].length;
}

/** The whole of a private key; without its last line, as far as it looks like one. */
function findPems(text: string, found: (hit: Hit) => void): void {
  for (let start = text.indexOf('-----BEGIN '); start >= 0; start = text.indexOf('-----BEGIN ', start + 11)) {
    const header = /^-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----/.exec(text.slice(start, start + 80));
    if (header === null) continue;
    const piece = text.slice(start, start + longestPem);
    const close = piece.indexOf('-----END ', header[0].length);
    const tail = close < 0 ? null : /^-----END [A-Z0-9 ]{1,60}-----/.exec(piece.slice(close, close + 80));
    const end = tail === null ? header[0].length + /^[A-Za-z0-9+/=\s:,-]*/.exec(piece.slice(header[0].length))![0].length : close + tail[0].length;
    found({ type: 'api_key', start, end: start + end });
    start += end - 11;
  }
}

/** Names of what must stay secret, at the end of a name in any manner of writing. */
const secretName = /(?:api[_-]?key|apikey|(?:access|secret|private|auth|encryption|signing|master|account|service|subscription|license|shared|app|client|consumer|storage|deploy|session|webhook|admin|write|read)[_-]?(?:key|token|secret)|secret|token|passwd|password|passphrase|pwd|credentials?|x-api-key|authorization|bearer)["']?\s{0,2}$/i;
const longestName = 64;
const longestValue = 512;

function findNamed(text: string, found: (hit: Hit) => void): void {
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit !== equals && unit !== colon) continue;
    const before = text.charCodeAt(at - 1);
    if (before === unit || before === 0x21 || !endsLikeSecretName(text, at) || !secretName.test(text.slice(Math.max(0, at - longestName), at))) continue;
    const lead = /^(?:[=:]?>?)\s{0,2}["'`]?(?:Bearer |Token |Basic )?/i.exec(text.slice(at + 1, at + 16))![0];
    const start = at + 1 + lead.length;
    let end = start;
    while (end < text.length && end - start <= longestValue && inValue(text.charCodeAt(end))) end++;
    while (end > start && (text.charCodeAt(end - 1) === dot || text.charCodeAt(end - 1) === 0x3a)) end--;
    if (end - start <= longestValue && looksRandom(text.slice(start, end))) found({ type: 'api_key', start, end });
    at = Math.max(at, end - 1);
  }
}

/** A cheap look before the expensive one. */
function endsLikeSecretName(text: string, at: number): boolean {
  let end = at;
  for (let i = 0; i < 3 && end > 0 && !isAsciiLetter(text.charCodeAt(end - 1)); i++) end--;
  return 'yYtTnNdDeEsSrR'.includes(text[end - 1] ?? ' ') && isAsciiLetter(text.charCodeAt(end - 2));
}

function inValue(unit: number): boolean {
  return isAlnum(unit) || unit === underscore || unit === dash || unit === dot || unit === 0x2b || unit === 0x2f || unit === equals || unit === 0x7e || unit === 0x21 || unit === 0x40 || unit === 0x23 || unit === 0x24 || unit === 0x25 || unit === 0x5e || unit === 0x2a || unit === 0x3a;
}

/** At least 16 characters with letters and digits that do not repeat much: 3 bits a character is what hexadecimal text of that length has. */
function looksRandom(value: string): boolean {
  if (value.length < 16 || !/\d/.test(value) || !/[A-Za-z]/.test(value) || isPlaceholder(value)) return false;
  if (/^(?:\$|process\.|os\.|env\.|https?:|arn:|\/|\.\/)/.test(value) || value.split(/[-_.]/).every((word) => /^(?:[A-Za-z]+\d?|\d{1,4})$/.test(word))) return false;
  const counts = new Map<string, number>();
  for (const char of value) counts.set(char, (counts.get(char) ?? 0) + 1);
  let bits = 0;
  for (const count of counts.values()) bits -= (count / value.length) * Math.log2(count / value.length);
  return bits >= 3;
}

function isPlaceholder(value: string): boolean {
  return /x{6,}|\*{4,}|\.{3}|0{10,}|your[_-]?|example|changeme|placeholder|redacted|<|insert/i.test(value);
}

function isAlnum(unit: number): boolean {
  return isAsciiLetter(unit) || isDigit(unit);
}
