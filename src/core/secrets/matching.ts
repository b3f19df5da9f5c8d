import type { SecretBinding, SecretHost, SecretRule } from '../network/inspection.ts';
import { patternMatches } from '../network/patterns.ts';

/** A request as far as a secret's rules look at it. */
export interface SecretTarget {
  readonly secure: boolean;
  /** Canonical (`canonicalName`). */
  readonly host: string;
  /** Upper case. */
  readonly method: string;
  /** Canonical, without query. */
  readonly path: string;
}

export type RefusalCode = 'credential_host_mismatch' | 'credential_revoked' | 'credential_scope_mismatch' | 'plain_http';

/** Whether a secret may go into a request. */
export type Applicability =
  | { readonly applies: true; readonly rule: SecretRule }
  | { readonly applies: false; readonly code: RefusalCode; /** One sentence, for the program inside. */ readonly reason: string };

/** Whether a rule's host is this canonical name. */
export function secretHostMatches(host: SecretHost, name: string): boolean {
  switch (host.kind) {
    case 'name':
      return host.name === name;
    case 'one-level': {
      const dot = name.indexOf('.');
      return dot > 0 && name.slice(dot + 1) === host.suffix;
    }
    case 'regex':
      return patternMatches(host, name);
  }
}

/** The first rule for a host; undefined when the secret must not go there. */
export function ruleForHost(rules: readonly SecretRule[], name: string): SecretRule | undefined {
  return rules.find((rule) => rule.hosts.some((host) => secretHostMatches(host, name)));
}

/** Pure: the proxy decides by it, and so does whoever asks beforehand. A secret that is gone is told after a wrong host, which is worse. */
export function applicability(binding: Pick<SecretBinding, 'secretName' | 'value' | 'rules'>, target: SecretTarget): Applicability {
  const { secretName, value, rules } = binding;
  const rule = ruleForHost(rules, target.host);
  if (rule === undefined) return refused('credential_host_mismatch', `The secret ${secretName} is not for ${target.host}.`);
  if (value === null) return refused('credential_revoked', `The secret ${secretName} was deleted, or taken away from this sandbox.`);
  if (!target.secure) return refused('plain_http', `The secret ${secretName} is sent over https only.`);
  if (rule.methods.length > 0 && !rule.methods.includes(target.method)) return refused('credential_scope_mismatch', `The secret ${secretName} is not for ${target.method} requests.`);
  if (rule.paths.length > 0 && !rule.paths.some((prefix) => isBelow(prefix, target.path))) return refused('credential_scope_mismatch', `The secret ${secretName} is not for this path of ${target.host}.`);
  return { applies: true, rule };
}

function isBelow(prefix: string, path: string): boolean {
  return path === prefix || path.startsWith(prefix.endsWith('/') ? prefix : `${prefix}/`);
}

function refused(code: RefusalCode, reason: string): Applicability {
  return { applies: false, code, reason };
}
