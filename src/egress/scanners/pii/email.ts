import tlds from 'tlds' with { type: 'json' };
import { domainToUnicode } from 'node:url';
import { isAsciiLetter, isDigit } from './characters.ts';
import type { Hit } from './types.ts';

const topLevel: ReadonlySet<string> = new Set(tlds);
/** RFC 5321 allows 64 octets; some mailers more. */
const longestLocal = 128;
const longestDomain = 253;
const [at, dot, dash, quote, colon, slash] = [0x40, 0x2e, 0x2d, 0x22, 0x3a, 0x2f];

/** Names before the sign that log in to a machine. */
const logins: ReadonlySet<string> = new Set(['git', 'hg', 'svn', 'root', 'ubuntu', 'ec2-user', 'debian', 'deploy', 'www-data', 'pi']);

/**
 * Mail addresses: `atom.atom@domain.tld` and `"quoted text"@domain.tld`, also with letters beyond ASCII, where the domain has a top level
 * that is delegated; and `name@[192.0.2.1]`.
 */
export function findEmails(text: string, found: (hit: Hit) => void): void {
  for (let sign = text.indexOf('@'), last = 0; sign >= 0; sign = text.indexOf('@', sign + 1)) {
    const end = domainEnd(text, sign + 1);
    if (end < 0) continue;
    const start = localStart(text, sign, last);
    if (start < 0 || notMail(text, start, sign, end)) continue;
    found({ type: 'email', start, end });
    last = end;
  }
}

function localStart(text: string, sign: number, from: number): number {
  const least = Math.max(from, sign - longestLocal);
  if (text.charCodeAt(sign - 1) === quote) {
    for (let i = sign - 2; i >= least; i--) {
      if (text.charCodeAt(i) !== quote || text[i - 1] === '\\') continue;
      return i < sign - 2 && !text.slice(i, sign).includes('\n') ? i : -1;
    }
    return -1;
  }
  let start = sign;
  while (start > least && isAtom(text.charCodeAt(start - 1))) start--;
  if (start > 0 && start === sign - longestLocal && isAtom(text.charCodeAt(start - 1))) return -1;
  while (start < sign && notFirst(text.charCodeAt(start))) start++;
  return start < sign && text.charCodeAt(sign - 1) !== dot && !text.slice(start, sign).includes('..') ? start : -1;
}

/** Characters of an atom (RFC 5322 section 3.2.3, RFC 6531), but those that rather separate: `&`, `%`, `/`, `=`, `?`, `{`, `|`, `}`, `` ` ``, `^`, `*`, `'` only within. */
function isAtom(unit: number): boolean {
  if (isAsciiLetter(unit) || isDigit(unit) || unit === dot || unit === dash || unit === 0x5f || unit === 0x2b) return true;
  if (unit < 0x80) return unit === 0x21 || unit === 0x23 || unit === 0x24 || unit === 0x27 || unit === 0x7e;
  return isBeyondAscii(unit);
}

/** Characters that an address hardly begins with, and that often stand before one. */
function notFirst(unit: number): boolean {
  return unit === dot || unit === 0x27 || unit === 0x26 || unit === 0x21 || unit === 0x23 || unit === 0x25 || unit === 0x24 || unit === 0x7e || unit === dash;
}

/** Letters, marks and surrogates; not the punctuation of other scripts. */
function isBeyondAscii(unit: number): boolean {
  if (unit < 0xc0 || !(unit <= 0xffff)) return false;
  return !((unit >= 0x2000 && unit < 0x2c00) || (unit >= 0x3000 && unit < 0x3041) || (unit >= 0xfe10 && unit < 0xfe70) || unit >= 0xff00 || unit === 0xd7 || unit === 0xf7);
}

/** Where the domain that begins here ends; negative when it is none. */
function domainEnd(text: string, start: number): number {
  if (text[start] === '[') {
    const literal = /^\[(?:\d{1,3}\.){3}\d{1,3}\]/.exec(text.slice(start, start + 17));
    return literal === null ? -1 : start + literal[0].length;
  }
  let end = start;
  const most = Math.min(text.length, start + longestDomain + 1);
  while (end < most && isDomain(text.charCodeAt(end))) end++;
  if (end - start > longestDomain) return -1;
  while (end > start && (text.charCodeAt(end - 1) === dot || text.charCodeAt(end - 1) === dash)) end--;
  if (text.charCodeAt(end) === 0x5f) return -1;
  const labels = text.slice(start, end).toLowerCase().split('.');
  if (labels.length < 2 || labels.some((label) => label === '' || label.length > 63 || label.startsWith('-') || label.endsWith('-'))) return -1;
  const last = labels.at(-1)!;
  return topLevel.has(last.startsWith('xn--') ? domainToUnicode(last) : last) ? end : -1;
}

function isDomain(unit: number): boolean {
  return isAsciiLetter(unit) || isDigit(unit) || unit === dot || unit === dash || isBeyondAscii(unit);
}

/** The user of a URL (`https://user@host/`), of a copy over ssh (`git@host:path`), or one part of something with more signs. */
function notMail(text: string, start: number, sign: number, end: number): boolean {
  const after = text.charCodeAt(end);
  if (after === at || text.charCodeAt(start - 1) === at) return true;
  const next = text.charCodeAt(end + 1);
  const before = text.slice(Math.max(0, start - 128), start);
  if (logins.has(text.slice(start, sign)) && (after === slash || (after === colon && !(next <= 0x20)))) return true;
  if (after === colon && (next === slash || next === 0x7e)) return true;
  if (/\b(?:ssh|scp|sftp|rsync|mosh|ssh-copy-id)\s[^\n]{0,60}$/.test(before.slice(-70))) return true;
  const scheme = before.lastIndexOf('://');
  return scheme >= 0 && !/[\s/?#"'<>,;=&]/.test(before.slice(scheme + 3));
}
