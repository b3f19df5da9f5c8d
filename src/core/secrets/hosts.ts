import { getDomain, getPublicSuffix } from 'tldts';
import type { SecretHost } from '../network/inspection.ts';
import { canonicalName } from '../network/names.ts';
import { weighPattern } from '../network/patterns.ts';
import { invalid, shown } from './faults.ts';
import { literalEnd, splitAlternatives, withoutAnchors } from './patterns.ts';

/** Hosters' suffixes (github.io) count like registries' (co.uk): anybody gets a name below them. */
const suffixes = { allowPrivateDomains: true } as const;

/** Instructions of one pattern: a secret has at most 16 rules, so a request costs well below a millisecond. */
const heaviestPattern = 1000;
const longestPattern = 256;

/**
 * A host name, or `*.example.com` for every name one level below `example.com`.
 *
 * @throws PaddockError `invalid_argument` naming the field, also for a wildcard below which anybody may have a name.
 */
export function parseHostPattern(text: string, field: string): SecretHost {
  const wildcard = text.startsWith('*.');
  // The conversion of international names drops line breaks.
  const name = /[\s\p{Cc}]/u.test(text) ? null : canonicalName(wildcard ? text.slice(2) : text);
  if (name === null || (text.includes('*') && !wildcard)) throw invalid(field, `${shown(text)} is not a host name, and no wildcard such as *.example.com; give it without scheme, port and path`);
  if (!wildcard) return Object.freeze({ kind: 'name', text: name, name });
  if (isOpen(name)) throw invalid(field, `${shown(text)} is too broad: anybody can get a name below ${name}. Name your own domain`);
  return Object.freeze({ kind: 'one-level', text: `*.${name}`, suffix: name });
}

/**
 * A regular expression for whole host names, in RE2's syntax; letters' case does not matter. What it matches must end in one registered
 * domain, so that no stranger's host is among it: `.*\.example\.com`, `(api|files)\.example\.com`. A dot between the letters of that end is a
 * dot, escaped or not. Alternatives become hosts of their own.
 *
 * @throws PaddockError `invalid_argument` naming the field, the pattern and what to write instead.
 */
export function parseHostRegex(text: string, field: string): readonly SecretHost[] {
  if (text.length === 0 || text.length > longestPattern) throw invalid(field, `must have 1 to ${longestPattern} characters, not ${text.length}`);
  if (!/^[\x21-\x7e]+$/.test(text)) throw invalid(field, 'holds a space, a control character or one beyond ASCII');
  if (weigh(text, text, field) > heaviestPattern) throw invalid(field, `${shown(text)} repeats too much; use smaller counts in braces, or * and +`);
  const alternatives = splitAlternatives(text);
  if (alternatives === null) throw invalid(field, `${shown(text)} quotes with \\Q, which is not taken here; escape each character`);
  return Object.freeze(alternatives.map((each) => Object.freeze(hostOf(withoutAnchors(each), text, field))));
}

function hostOf(alternative: string, text: string, field: string): SecretHost {
  const { before, literal, separated } = literalEnd(alternative);
  const end = canonicalName(literal.replace(/^\./, ''));
  if (before === '') {
    if (end === null || literal.startsWith('.')) throw invalid(field, `${shown(text)} matches no host name`);
    return { kind: 'name', text, name: end };
  }
  const domain = end === null ? null : getDomain(end, suffixes);
  if (end === null || domain === null) throw invalid(field, `${shown(text)} is too broad: it must end in a registered domain, as in .*\\.example\\.com; for several domains give a scope each`);
  if (!separated && !literal.startsWith('.')) throw invalid(field, `${shown(text)} is too broad: it would match anybody's evil${end} too; write a dot before it, as in .*\\.${end.replaceAll('.', '\\.')}`);
  const pattern = before + literal.replaceAll('.', '\\.');
  weigh(pattern, text, field);
  return { kind: 'regex', text, pattern };
}

function weigh(pattern: string, text: string, field: string): number {
  try {
    return weighPattern(pattern);
  } catch (cause) {
    const why = (cause as Error).message.replace(/^error parsing regexp: /, '').replace('(?s)(?i)', '');
    throw invalid(field, `${shown(text)} is not a regular expression of RE2 (${why}); look-around and back references are not supported`);
  }
}

/** Whether names below it are given to anybody. */
function isOpen(name: string): boolean {
  return getPublicSuffix(name, suffixes) === name;
}
