import { Type, type Static } from 'typebox';
import { formatCidr } from '../../core/network/addresses.ts';
import { parsePolicy, type RuleForms } from '../../core/network/parse.ts';
import type { DestinationRule, NetworkPolicy } from '../../core/network/rules.ts';
import { optional, strict } from './body.ts';

/** The `network` of a create or an update (contract, section 8). */
export const Network = strict({ allow_out: optional(Type.Array(Type.String())), deny_out: optional(Type.Array(Type.String())) });

const names: RuleForms = Object.freeze({ everything: false, names: true, patterns: false });
const addresses: RuleForms = Object.freeze({ everything: false, names: false, patterns: false });

/** @throws PaddockError `invalid_argument` naming the rule: names in `allow_out` only, IPv4 in both, nothing else. */
export function readNetwork({ allow_out, deny_out }: Static<typeof Network>): NetworkPolicy {
  return parsePolicy({ allow: allow_out ?? [], deny: deny_out ?? [] }, { allow: 'network.allow_out', deny: 'network.deny_out' }, { allow: names, deny: addresses });
}

/** As this wire shows rules: networks before names, a single address as a network of one. Null when there are none. */
export function presentNetwork(policy: NetworkPolicy): { readonly allow_out: readonly string[]; readonly deny_out: readonly string[] } | null {
  if (policy.allow.length === 0 && policy.deny.length === 0) return null;
  return { allow_out: policy.allow.map(presentRule).sort(networksFirst), deny_out: policy.deny.map(presentRule).sort(networksFirst) };
}

function presentRule(rule: DestinationRule): string {
  switch (rule.kind) {
    case 'all':
      return '0.0.0.0/0';
    case 'cidr':
      return formatCidr(rule);
    case 'name':
      return rule.name;
    case 'suffix':
      return `*.${rule.suffix}`;
    case 'regex':
      return rule.text; // of a sandbox that was made through another wire
  }
}

function networksFirst(a: string, b: string): number {
  const isNetwork = (rule: string): number => (/^[\d.]+\/\d+$/.test(rule) ? 0 : 1);
  return isNetwork(a) - isNetwork(b);
}
