import { PaddockError } from './errors.ts';
import { type GuardrailsRequest, parseGuardrails } from './guardrails/guardrails.ts';
import type { VolumeMount } from './host.ts';
import { parsePolicy } from './network/parse.ts';
import type { NetworkPolicy } from './network/rules.ts';
import { parseAuthority } from './network/target.ts';
import type { EnforcedPolicy, PreviewAccess } from './sandbox.ts';
import { assertAttachable, type VolumeAttachment } from './volume-attachments.ts';

/** What a create asks for in rules, after its wire has checked shapes and taken defaults and aliases apart. */
export interface PolicyRequest {
  readonly network?: NetworkRequest;
  readonly security?: SecurityRequest;
  readonly previews?: PreviewAccess;
  readonly volumes?: readonly VolumeAttachment[];
}

export interface NetworkRequest {
  readonly allowOut?: readonly string[];
  readonly denyOut?: readonly string[];
  readonly allowPublicTraffic?: boolean;
  /** A text is the `Host` that programs behind the port proxy see; true and false stand for the usual one. */
  readonly maskRequestHost?: string | boolean;
}

interface Switch {
  readonly enabled: boolean;
}
interface ScopedSwitch extends Switch {
  readonly domains?: readonly string[];
}

export interface SecurityRequest extends GuardrailsRequest {
  /** Asks a second scorer about injections. */
  readonly injectionJudge?: Switch;
  readonly audit?: Switch;
  readonly envSecurity?: { readonly maskPatterns?: readonly string[]; readonly sensitiveVars?: readonly unknown[] };
  readonly network?: NetworkRequest;
  /** Without domains it scans nothing. */
  readonly contentGate?: ScopedSwitch;
  readonly customPolicy?: Switch;
}

/** Names whose values are masked in an echo when a policy gives no patterns of its own. */
export const defaultMaskPatterns: readonly string[] = Object.freeze([
  '*_KEY', '*_SECRET', '*_TOKEN', '*_PASSWORD', '*_CREDENTIALS', 'API_KEY', 'SECRET_KEY',
]);

const mostMaskPatterns = 1000;

/**
 * Refuses, with the exact field, every rule that cannot be read, and every one that is not in force yet, so that nothing is
 * accepted and ignored. Asking for nothing is fine.
 */
export function assertEnforceable(request: PolicyRequest): void {
  assertNetwork('network', request.network ?? {});
  const security = request.security ?? {};
  assertNetwork('security.network', security.network ?? {});
  const guardrails = parseGuardrails(security);
  if (guardrails?.injection != null && security.injectionJudge?.enabled === true) refuse('security.injection_defense.judge.enabled');
  if (security.contentGate?.enabled === true && some(security.contentGate.domains)) refuse('security.content_gate.domains');
  if (security.customPolicy?.enabled === true) refuse('security.custom_policy.enabled');
  if (some(security.envSecurity?.sensitiveVars)) refuse('security.env_security.sensitive_vars');
  assertMaskPatterns(security.envSecurity?.maskPatterns ?? []);
  assertAttachable(request.volumes ?? []);
}

/** The rules in force for a request that was accepted. What the network beside the policy leaves open, the policy's decides. */
export function enforcedPolicy(request: PolicyRequest): EnforcedPolicy {
  const network: NetworkRequest = { ...request.security?.network, ...request.network };
  const guardrails = parseGuardrails(request.security ?? {});
  return Object.freeze({
    allowPublicTraffic: network.allowPublicTraffic ?? true,
    audit: request.security?.audit?.enabled ?? true,
    previews: request.previews ?? 'private',
    network: parsePolicy({ allow: network.allowOut ?? [], deny: network.denyOut ?? [] }),
    maskRequestHost: typeof network.maskRequestHost === 'string' && network.maskRequestHost !== '' ? network.maskRequestHost : null,
    ...(guardrails === null ? {} : { guardrails }),
  });
}

/** The same for a sandbox with these volumes before its eyes. */
export function withVolumes(policy: EnforcedPolicy, volumes: readonly VolumeMount[]): EnforcedPolicy {
  return volumes.length === 0 && policy.volumes === undefined ? policy : Object.freeze({ ...policy, volumes });
}

/** Reads the outbound rules of a request whose lists stand under `path`; throws `invalid_argument` naming the rule. */
export function outboundRules(path: string, network: Pick<NetworkRequest, 'allowOut' | 'denyOut'>): NetworkPolicy {
  return parsePolicy({ allow: network.allowOut ?? [], deny: network.denyOut ?? [] }, { allow: `${path}.allow_out`, deny: `${path}.deny_out` });
}

/** The `Host` header for a program on this port. */
export function hostSeenInside(policy: Pick<EnforcedPolicy, 'maskRequestHost'>, port: number): string {
  return policy.maskRequestHost?.replaceAll('${PORT}', String(port)) ?? `localhost:${port}`;
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
  outboundRules(path, network);
  const mask = network.maskRequestHost;
  if (typeof mask !== 'string' || mask === '') return;
  if (parseAuthority(mask.replaceAll('${PORT}', '65535')) === null || /[^\x21-\x7e]/.test(mask)) {
    throw invalid(`${path}.mask_request_host`, `must be a host or host:port, where \${PORT} stands for the port, not ${JSON.stringify(mask.slice(0, 80))}`);
  }
}

function assertMaskPatterns(patterns: readonly string[]): void {
  if (patterns.length > mostMaskPatterns) throw invalid('security.env_security.mask_patterns', `has ${patterns.length} entries; the limit is ${mostMaskPatterns}`);
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
