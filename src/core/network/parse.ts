import { PaddockError } from '../errors.ts';
import { endsInNumber, formatAddress, networkOf, parseAddress, parseIpv4 } from './addresses.ts';
import { canonicalName } from './names.ts';
import { weighPattern } from './patterns.ts';
import type { DestinationRule, NetworkPolicy, NetworkRules } from './rules.ts';

/** The forms that a wire takes in one of its lists. IPv4 addresses and CIDRs are taken everywhere. */
export interface RuleForms {
  /** `*` and `ALL_TRAFFIC`, beside `0.0.0.0/0`. */
  readonly everything: boolean;
  /** Host names and `*.suffix`. */
  readonly names: boolean;
  /** `~regex`. */
  readonly patterns: boolean;
}

export const allForms: RuleForms = Object.freeze({ everything: true, names: true, patterns: true });

/** Where the lists stand in a request, for messages. */
export interface RuleFields {
  readonly allow: string;
  readonly deny: string;
}

/** Rules of one list. */
const mostRules = 1000;
const longestPattern = 1000;
/** Instructions of one pattern, and of all patterns of a policy: what bounds the time of a verdict to some milliseconds. */
const heaviestPattern = 2000;
const heaviestPolicy = 20_000;

/**
 * The rules of a sandbox.
 *
 * @throws PaddockError `invalid_argument` that names the list, the rule and what to write instead.
 */
export function parsePolicy(rules: NetworkRules, fields: RuleFields = { allow: 'allow_out', deny: 'deny_out' }, forms: { readonly allow?: RuleForms; readonly deny?: RuleForms } = {}): NetworkPolicy {
  const budget = { left: heaviestPolicy };
  return Object.freeze({
    allow: parseList(rules.allow, fields.allow, forms.allow ?? allForms, budget),
    deny: parseList(rules.deny, fields.deny, forms.deny ?? allForms, budget),
  });
}

/** Host names, `*.suffix` and `~regex` of a list that says which hosts something else is for. @throws PaddockError as `parsePolicy` */
export function parseDomains(texts: readonly string[], field: string, budget: { left: number } = { left: heaviestPolicy }): readonly DestinationRule[] {
  const rules = parseList(texts, field, allForms, budget);
  rules.forEach((rule, i) => {
    if (rule.kind === 'cidr') throw refused(`${field}[${i}]`, rule.text, 'is an address; give host names, *.suffix or ~regex, or leave the list out');
  });
  return rules;
}

function parseList(texts: readonly string[], field: string, forms: RuleForms, budget: { left: number }): readonly DestinationRule[] {
  if (texts.length > mostRules) throw invalid(field, `has ${texts.length} entries; the limit is ${mostRules}`);
  return Object.freeze(texts.map((text, i) => Object.freeze(parseRule(text, `${field}[${i}]`, forms, budget))));
}

function parseRule(text: string, field: string, forms: RuleForms, budget: { left: number }): DestinationRule {
  if (text === '*' || text === 'ALL_TRAFFIC') {
    if (forms.everything) return { kind: 'all', text };
    throw refused(field, text, 'does not stand for everything here; write 0.0.0.0/0');
  }
  if (text.startsWith('~')) return parsePattern(text, field, forms, budget);
  const fault = commonFault(text);
  if (fault !== null) throw refused(field, text, fault);
  if (/^[^/]+\/\d+$/.test(text) || endsInNumber(text)) return parseCidr(text, field);
  if (!forms.names) throw refused(field, text, 'is not an IPv4 address or CIDR, and this list takes nothing else');
  const suffix = text.startsWith('*.');
  const name = canonicalName(suffix ? text.slice(2) : text);
  if (name === null) throw refused(field, text, 'is not a host name: labels of letters, digits, - and _, at most 63 characters each and 253 together');
  return suffix ? { kind: 'suffix', text, suffix: name } : { kind: 'name', text, name };
}

function parseCidr(text: string, field: string): DestinationRule {
  const [host = '', prefixText] = text.split('/');
  const address = parseIpv4(host);
  if (address === null) {
    const meant = parseAddress(host);
    const hint = meant?.family === 4 ? `; write ${formatAddress(meant.address)}, if that is what it means` : '';
    throw refused(field, text, `is not an IPv4 address of four decimal numbers from 0 to 255${hint}`);
  }
  const prefix = prefixText === undefined ? 32 : Number(prefixText);
  if (prefix > 32) throw refused(field, text, 'has a prefix above 32');
  return prefix === 0 ? { kind: 'all', text } : { kind: 'cidr', text, base: networkOf(address, prefix), prefix };
}

function parsePattern(text: string, field: string, forms: RuleForms, budget: { left: number }): DestinationRule {
  if (!forms.patterns) throw refused(field, text, 'is a regular expression, which is not taken here; give host names or *.suffix');
  const pattern = text.slice(1);
  if (pattern === '') throw refused(field, text, 'has no pattern behind the ~');
  if (pattern.length > longestPattern) throw refused(field, text, `has a pattern of ${pattern.length} characters; the limit is ${longestPattern}`);
  const weight = weigh(pattern, field, text);
  if (weight > heaviestPattern) throw refused(field, text, 'repeats too much; use smaller counts in braces, or * and +');
  budget.left -= weight;
  if (budget.left < 0) throw refused(field, text, 'is one too many: the regular expressions are too large together; use names and *.suffix where they do');
  return { kind: 'regex', text, pattern };
}

function weigh(pattern: string, field: string, text: string): number {
  try {
    return weighPattern(pattern);
  } catch (cause) {
    // The engine shows its flags as if they had been written.
    const why = (cause as Error).message.replace(/^error parsing regexp: /, '').replace('(?s)(?i)', '');
    throw refused(field, text, `is not a regular expression of RE2 (${why}); look-around and back references are not supported`);
  }
}

/** What people write by mistake, each with its remedy. */
function commonFault(text: string): string | null {
  if (text === '') return 'is empty; leave it out';
  if (text !== text.trim()) return 'has spaces around it';
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(text)) return 'is a URL; give only the host';
  const withoutPrefix = text.replace(/\/\d+$/, '');
  if (parseAddress(withoutPrefix)?.family === 6 || /^\[.*\](:\d+)?$/.test(text) || (text.match(/:/g)?.length ?? 0) > 1) return 'is an IPv6 address; IPv6 is not supported, and sandboxes have none: nothing needs to be denied';
  if (/:\d*$/.test(text)) return 'has a port; give only the host: rules hold for every port';
  if (text.includes('@')) return 'has a user name; give only the host';
  if (/[/?#]/.test(withoutPrefix)) return 'has a path; give only the host';
  if (text.startsWith('.')) return `starts with a dot; write *${text.slice(0, 80)} for every host below it`;
  if (text.indexOf('*', text.startsWith('*.') ? 1 : 0) !== -1) return 'has a * in another place than a leading *.; use ~regex for other patterns';
  return null;
}

function refused(field: string, text: string, why: string): PaddockError {
  const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text;
  return invalid(field, `${JSON.stringify(shown)} ${why}`);
}

function invalid(field: string, what: string): PaddockError {
  return new PaddockError('invalid_argument', `${field} ${what}`, { field });
}
