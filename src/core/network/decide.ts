import { contains, disjoint, formatAddress, whyNeverReachable, type Cidr } from './addresses.ts';
import { patternMatches } from './patterns.ts';
import type { DestinationRule, NetworkPolicy } from './rules.ts';

/**
 * Where a connection goes, parsed once. The name is canonical (`canonicalName`); null when none is known. The address is an unsigned
 * 32-bit number; null for a name that has not been resolved yet.
 */
export interface Destination {
  readonly name: string | null;
  readonly address: number | null;
  readonly port: number;
}

/** Which kind of rule gave a verdict; `protocol` is for what cannot be judged at all, which `decide` never sees. */
export type MatchRule = 'default' | 'domain' | 'cidr' | 'implicit-deny' | 'internal-ip' | 'protocol';

export interface Verdict {
  readonly allowed: boolean;
  readonly matchRule: MatchRule;
  /** The owner's rule, as written; null when none gave the verdict. */
  readonly rule: string | null;
  /** Why it is blocked, one sentence; empty when allowed. */
  readonly reason: string;
}

/**
 * Whether a sandbox may reach a destination, and why. The first of these that holds decides: an address that nobody may reach; a name
 * that is allowed; an address that is allowed; a name or an address that is denied; an allow list that has rules, none of which
 * matched; else it is allowed.
 *
 * Without an address the verdict is about the name alone: allowed then means that it may be resolved, and the verdict about the address
 * follows.
 */
export function decide(policy: NetworkPolicy, destination: Destination): Verdict {
  const { name, address } = destination;
  const internal = address === null ? null : whyNeverReachable(address);
  if (internal !== null) return blocked('internal-ip', null, `${describe(destination)} is not on the public internet (${internal}); no rule can open it.`);

  const allowedName = name === null ? undefined : policy.allow.find((rule) => matchesName(rule, name));
  if (allowedName !== undefined) return allowed('domain', allowedName.text);
  const allowedAddress = policy.allow.find((rule) => matchesAddress(rule, address));
  if (allowedAddress !== undefined) return allowed('cidr', allowedAddress.text);

  const deniedName = name === null ? undefined : policy.deny.find((rule) => matchesName(rule, name));
  if (deniedName !== undefined) return blocked('domain', deniedName.text, `${describe(destination)} is denied by the rule ${JSON.stringify(deniedName.text)} in deny_out.`);
  const deniedAddress = policy.deny.find((rule) => matchesAddress(rule, address));
  if (deniedAddress !== undefined) return blocked('cidr', deniedAddress.text, `${describe(destination)} is denied by the rule ${JSON.stringify(deniedAddress.text)} in deny_out.`);

  if (policy.allow.length > 0) return blocked('implicit-deny', null, `${describe(destination)} matches no rule in allow_out, and a sandbox with such rules reaches nothing else.`);
  return allowed('default', null);
}

/** Whether a name may leave the host to be resolved: a connection to it could be allowed for its name, or because nothing is against it. */
export function mayResolve(policy: NetworkPolicy, name: string): boolean {
  return decide(policy, { name, address: null, port: 0 }).allowed;
}

/** Whether names matter to the policy, so that the name behind each connection must be known. */
export function hasNameRules(policy: NetworkPolicy): boolean {
  return [...policy.allow, ...policy.deny].some((rule) => rule.kind !== 'all' && rule.kind !== 'cidr');
}

/**
 * What the packet filter has to know to refuse before the handshake what no name could allow. `strict` reaches nothing but `allowCidrs` and
 * names; `open` reaches everything but `denyCidrs`, of which `allowCidrs` are exceptions. Both lists are free of overlaps.
 */
export interface PolicyShape {
  readonly mode: 'open' | 'strict';
  readonly allowCidrs: readonly Cidr[];
  readonly denyCidrs: readonly Cidr[];
  /** Whether there are rules about names that change anything. */
  readonly names: boolean;
}

export function shape(policy: NetworkPolicy): PolicyShape {
  // Nothing is stronger than an allow rule for everything.
  if (policy.allow.some(isAll)) return Object.freeze({ mode: 'open', allowCidrs: [], denyCidrs: [], names: false });
  const strict = policy.allow.length > 0 || policy.deny.some(isAll);
  return Object.freeze({
    mode: strict ? 'strict' : 'open',
    allowCidrs: disjoint(policy.allow.filter((rule) => rule.kind === 'cidr')),
    denyCidrs: strict ? [] : disjoint(policy.deny.filter((rule) => rule.kind === 'cidr')),
    names: hasNameRules(policy),
  });
}

/** Whether a rule is for this canonical name. */
export function matchesName(rule: DestinationRule, name: string): boolean {
  switch (rule.kind) {
    case 'name':
      return rule.name === name;
    case 'suffix':
      return name.length > rule.suffix.length + 1 && name.endsWith(rule.suffix) && name[name.length - rule.suffix.length - 1] === '.';
    case 'regex':
      return patternMatches(rule, name);
    case 'all':
    case 'cidr':
      return false;
  }
}

/** Everything includes addresses that are not known yet. */
function matchesAddress(rule: DestinationRule, address: number | null): boolean {
  return isAll(rule) || (rule.kind === 'cidr' && address !== null && contains(rule, address));
}

function isAll(rule: DestinationRule): boolean {
  return rule.kind === 'all';
}

function describe({ name, address }: Destination): string {
  if (name === null) return address === null ? 'This destination' : formatAddress(address);
  return address === null ? name : `${name} (${formatAddress(address)})`;
}

function allowed(matchRule: MatchRule, rule: string | null): Verdict {
  return { allowed: true, matchRule, rule, reason: '' };
}

function blocked(matchRule: MatchRule, rule: string | null, reason: string): Verdict {
  return { allowed: false, matchRule, rule, reason };
}
