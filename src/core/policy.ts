import { PaddockError } from './errors.ts';
import type { EnforcedPolicy } from './sandbox.ts';

/** What a create asks for in rules, after its wire has checked shapes and taken defaults and aliases apart. */
export interface PolicyRequest {
  readonly network?: NetworkRequest;
  readonly security?: SecurityRequest;
  /** Environment name → reference to a secret. */
  readonly vaultRefs?: Readonly<Record<string, string>>;
  readonly volumes?: readonly unknown[];
}

export interface NetworkRequest {
  readonly allowOut?: readonly string[];
  readonly denyOut?: readonly string[];
  readonly allowPublicTraffic?: boolean;
  readonly maskRequestHost?: string | boolean;
}

interface Switch {
  readonly enabled: boolean;
}
interface ScopedSwitch extends Switch {
  readonly domains?: readonly string[];
}

export interface SecurityRequest {
  readonly pii?: Switch;
  /** Without domains it scans nothing, and so does `contentGate`. */
  readonly injectionDefense?: ScopedSwitch;
  readonly transformations?: readonly unknown[];
  readonly audit?: Switch;
  readonly envSecurity?: { readonly maskPatterns?: readonly string[]; readonly sensitiveVars?: readonly unknown[] };
  readonly network?: NetworkRequest;
  readonly toxicity?: Switch;
  readonly codeSecurity?: Switch;
  readonly invisibleText?: Switch;
  readonly contentGate?: ScopedSwitch;
  readonly customPolicy?: Switch;
}

/** Names whose values are masked in an echo when a policy gives no patterns of its own. */
export const defaultMaskPatterns: readonly string[] = Object.freeze([
  '*_KEY', '*_SECRET', '*_TOKEN', '*_PASSWORD', '*_CREDENTIALS', 'API_KEY', 'SECRET_KEY',
]);

const longestRule = 1000;
const mostRules = 1000;

/**
 * Refuses, with the exact field, every rule that is not in force yet, so that nothing is accepted and ignored. Asking for
 * nothing is fine, and so is any `deny_out`: sandboxes have no way out, every denial already holds.
 */
export function assertEnforceable(request: PolicyRequest): void {
  assertNetwork('network', request.network ?? {});
  const security = request.security ?? {};
  assertNetwork('security.network', security.network ?? {});
  if (security.pii?.enabled === true) refuse('security.pii.enabled');
  if (security.injectionDefense?.enabled === true && some(security.injectionDefense.domains)) refuse('security.injection_defense.domains');
  if (some(security.transformations)) refuse('security.transformations');
  if (security.toxicity?.enabled === true) refuse('security.toxicity.enabled');
  if (security.codeSecurity?.enabled === true) refuse('security.code_security.enabled');
  if (security.invisibleText?.enabled === true) refuse('security.invisible_text.enabled');
  if (security.contentGate?.enabled === true && some(security.contentGate.domains)) refuse('security.content_gate.domains');
  if (security.customPolicy?.enabled === true) refuse('security.custom_policy.enabled');
  if (some(security.envSecurity?.sensitiveVars)) refuse('security.env_security.sensitive_vars');
  assertMaskPatterns(security.envSecurity?.maskPatterns ?? []);
  if (Object.keys(request.vaultRefs ?? {}).length > 0) refuse('vault_refs');
  if (some(request.volumes)) refuse('volumes');
}

/** The rules in force for a request that was accepted. What the network beside the policy leaves open, the policy's decides. */
export function enforcedPolicy(request: PolicyRequest): EnforcedPolicy {
  return Object.freeze({
    allowPublicTraffic: request.network?.allowPublicTraffic ?? request.security?.network?.allowPublicTraffic ?? true,
    audit: request.security?.audit?.enabled ?? true,
  });
}

/**
 * The variables with the values masked whose names match one of the globs (`*` and `?`, letters of either case).
 *
 *     maskEnvs({ API_KEY: 's3cret', MODE: 'x' }, ['*_key']) // { API_KEY: '***', MODE: 'x' }
 */
export function maskEnvs(envs: Readonly<Record<string, string>>, patterns: readonly string[] = defaultMaskPatterns): Record<string, string> {
  const lower = patterns.map((pattern) => pattern.toLowerCase());
  return Object.fromEntries(
    Object.entries(envs).map(([name, value]) => [name, lower.some((pattern) => globMatches(pattern, name.toLowerCase())) ? '***' : value]),
  );
}

/** Whether a glob matches the whole text; linear in practice and never worse than pattern × text, unlike a RegExp. */
export function globMatches(pattern: string, text: string): boolean {
  let p = 0;
  let star = -1;
  let resume = 0;
  for (let t = 0; t < text.length; ) {
    if (pattern[p] === '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === text[t])) {
      p++;
      t++;
    } else if (star >= 0) {
      p = star + 1;
      t = ++resume;
    } else return false;
  }
  while (pattern[p] === '*') p++;
  return p === pattern.length;
}

function assertNetwork(path: string, network: NetworkRequest): void {
  if (some(network.allowOut)) refuse(`${path}.allow_out`);
  if (network.maskRequestHost !== undefined && network.maskRequestHost !== false && network.maskRequestHost !== '') refuse(`${path}.mask_request_host`);
  const rules = network.denyOut ?? [];
  if (rules.length > mostRules) throw invalid(`${path}.deny_out`, `has ${rules.length} entries; the limit is ${mostRules}`);
  for (const [i, rule] of rules.entries()) {
    if (!isDestinationRule(rule)) {
      throw invalid(`${path}.deny_out[${i}]`, `is no destination: ${JSON.stringify(rule.slice(0, 80))}; give an address, a CIDR, a host name, *.suffix, ~regex or *`);
    }
  }
}

const ipv4 = /^(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}(\/(3[0-2]|[12]?\d))?$/;
const ipv6 = /^[0-9a-f:]*:[0-9a-f:.]*(\/(12[0-8]|1[01]\d|[1-9]?\d))?$/i;
const hostName = /^(\*\.)?[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*\.?$/i;

function isDestinationRule(rule: string): boolean {
  if (rule.length === 0 || rule.length > longestRule) return false;
  if (rule === '*' || rule === 'ALL_TRAFFIC') return true;
  if (rule.startsWith('~')) return rule.length > 1;
  if (/^[\d./]+$/.test(rule)) return ipv4.test(rule);
  if (rule.includes(':')) return ipv6.test(rule);
  return rule.length <= 255 && hostName.test(rule);
}

function assertMaskPatterns(patterns: readonly string[]): void {
  if (patterns.length > mostRules) throw invalid('security.env_security.mask_patterns', `has ${patterns.length} entries; the limit is ${mostRules}`);
  for (const [i, pattern] of patterns.entries()) {
    if (pattern.length === 0 || pattern.length > 256) throw invalid(`security.env_security.mask_patterns[${i}]`, 'must have 1 to 256 characters');
  }
}

function some(list: readonly unknown[] | undefined): boolean {
  return list !== undefined && list.length > 0;
}

function invalid(field: string, what: string): PaddockError {
  return new PaddockError('invalid_argument', `${field} ${what}`, { field });
}

function refuse(field: string): never {
  throw invalid(field, 'is not available yet, and is refused rather than ignored; leave it out');
}
