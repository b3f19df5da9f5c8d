import { domainToASCII } from 'node:url';
import { endsInNumber } from './addresses.ts';

/**
 * A host name in the one form that rules are compared in: lower case, international names in punycode, no final dot. Null for what
 * is no name of a host. Underscores are fine: real names have them.
 *
 *     canonicalName('Bücher.Example.') // 'xn--bcher-kva.example'
 */
export function canonicalName(text: string): string | null {
  if (text.length > 1000) return null; // before anything is spent on it
  // Only what needs it: for plain names `domainToASCII` would turn `0x7f.1` into 127.0.0.1.
  const name = (isAscii(text) ? text : domainToASCII(text)).toLowerCase().replace(/\.$/, '');
  if (name.length > 253 || endsInNumber(name)) return null;
  return /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$/.test(name) ? name : null;
}

function isAscii(text: string): boolean {
  return /^[\x21-\x7e]*$/.test(text);
}
