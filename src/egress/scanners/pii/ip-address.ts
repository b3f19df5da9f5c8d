import { isIPv6 } from 'node:net';
import { isAsciiLetter, isDigit, isWord, textBefore } from './characters.ts';
import type { DigitRuns } from './digits.ts';
import type { Hit } from './types.ts';

/** What four numbers with dots are instead. */
const numbered = /(?:version|release|revision|build|firmware|\bver|\brev|section|chapter|clause|paragraph|figure|table|schema|api|sdk|driver|agent|appendix|oid|item|§)["']?[ ]{0,2}(?:no\.?|number|is|to|of)?[ .:=#"'(]{0,4}$|\bv\.?[ ]?$/;
const longestIpv6 = 45;

/**
 * IPv4 addresses in dotted form and IPv6 addresses in every form, but those that are nobody's: unspecified, loopback, broadcast and
 * net masks. Version and section numbers are told apart by what stands around them.
 */
export function findIpAddresses(runs: DigitRuns, found: (hit: Hit) => void): void {
  for (let run = 0; run + 3 < runs.count; run++) {
    if (runs.gap(run) !== '.' || runs.gap(run + 1) !== '.' || runs.gap(run + 2) !== '.') continue;
    let last = run + 3;
    while (runs.gap(last) === '.') last++;
    if (last === run + 3 && isAddress(runs, run)) found({ type: 'ip_address', start: runs.start(run), end: runs.end(last) });
    run = last;
  }
  findIpv6(runs.text, found);
}

function isAddress(runs: DigitRuns, first: number): boolean {
  const { text } = runs;
  const octets: number[] = [];
  for (let run = first; run < first + 4; run++) {
    const length = runs.length(run);
    if (length > 3 || (length > 1 && text[runs.start(run)] === '0')) return false;
    octets.push(Number(text.slice(runs.start(run), runs.end(run))));
  }
  if (octets.some((octet) => octet > 255) || nobodys(octets)) return false;
  const [start, end] = [runs.start(first), runs.end(first + 3)];
  const [before, after] = [text.charCodeAt(start - 1), text.charCodeAt(end)];
  const [second, next] = [text.charCodeAt(start - 2), text.charCodeAt(end + 1)];
  if (isWord(before) || before === 0x5f || isWord(after) || after === 0x5f || before === 0x2e) return false;
  // A fraction or a longer number; a name with a version in it (`tool-1.2.3.4`, `Browser/1.2.3.4`, `package@1.2.3.4`).
  if (after === 0x2e && isWord(next)) return false;
  if ((before === 0x2d || before === 0x2f || before === 0x2b || before === 0x7e || before === 0x5e) && isWord(second) && !(before === 0x2d && /(?:^|[^\w.])(?:\d{1,3}\.){3}\d{1,3}-$/.test(text.slice(Math.max(0, start - 18), start)))) return false;
  if (before === 0x40 && isPackage(text, start - 1)) return false;
  if ((after === 0x2d || after === 0x2b) && isAsciiLetter(next)) return false;
  return !numbered.test(textBefore(text, start, 24)) && !(before === 0x3d && second === 0x3d);
}

/** `name@1.2.3.4` names a version, unless it is where somebody logs in. */
function isPackage(text: string, sign: number): boolean {
  return isWord(text.charCodeAt(sign - 1)) && !/(?:ssh|scp|sftp|rsync|:\/\/)/.test(textBefore(text, sign, 48)) && !/(?:^|[^\w/.-])(?:root|admin|user|ubuntu|deploy|ec2-user)$/.test(textBefore(text, sign, 16));
}

function nobodys(octets: readonly number[]): boolean {
  const [first = 0] = octets;
  return first === 0 || first === 127 || (first === 255 && octets[1] === 255) || octets.every((octet) => octet === 255) || octets.join('.') === '255.0.0.0';
}

function findIpv6(text: string, found: (hit: Hit) => void): void {
  for (let colon = text.indexOf(':'), from = 0; colon >= 0; ) {
    let start = colon;
    while (start > from && isPart(text.charCodeAt(start - 1)) && colon - start <= longestIpv6) start--;
    let end = colon + 1;
    while (end < text.length && isPart(text.charCodeAt(end))) end++;
    from = end;
    colon = text.indexOf(':', end);
    if (end - start > longestIpv6 + 2 || end - start < 4) continue;
    while (text[end - 1] === '.' || (text[end - 1] === ':' && text[end - 2] !== ':')) end--;
    if (text[start] === ':' && text[start + 1] !== ':') start++;
    if (isIpv6(text, start, end)) found({ type: 'ip_address', start, end });
  }
}

function isPart(unit: number): boolean {
  return isDigit(unit) || ((unit | 0x20) >= 0x61 && (unit | 0x20) <= 0x66) || unit === 0x3a || unit === 0x2e;
}

function isIpv6(text: string, start: number, end: number): boolean {
  const address = text.slice(start, end);
  if (!isIPv6(address)) return false;
  const [before, after] = [text.charCodeAt(start - 1), text.charCodeAt(end)];
  if (isWord(before) || before === 0x5f || isWord(after) || after === 0x5f) return false;
  const groups = address.split(':').filter((group) => group !== '');
  // Eight pairs are an identifier of hardware or a fingerprint; `a::b` without a digit, or with two short parts, is a name in a program.
  if (groups.length === 8 && groups.every((group) => group.length === 2)) return false;
  if (!/\d/.test(address) || /^(?:::|::1|0:0:0:0:0:0:0:[01])$/.test(address)) return false;
  return groups.length >= 3 || groups.some((group) => group.length >= 3);
}
