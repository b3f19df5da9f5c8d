import type { Cidr } from './addresses.ts';

/**
 * One outbound rule, parsed once. `text` is what the owner wrote; verdicts and logs name the rule by it.
 *
 * A `name` is lower case without a final dot. A `suffix` is written `*.example.com`, matches any depth below `example.com`, and not
 * the apex itself. A `regex` is written `~pattern`, is matched against the whole host name by a linear-time engine.
 */
export type DestinationRule =
  | { readonly kind: 'all'; readonly text: string }
  | ({ readonly kind: 'cidr'; readonly text: string } & Cidr)
  | { readonly kind: 'name'; readonly text: string; readonly name: string }
  | { readonly kind: 'suffix'; readonly text: string; readonly suffix: string }
  | { readonly kind: 'regex'; readonly text: string; readonly pattern: string };

/** What a sandbox may reach. Empty lists mean no rule of that kind: both empty is the whole public internet. */
export interface NetworkPolicy {
  readonly allow: readonly DestinationRule[];
  readonly deny: readonly DestinationRule[];
}

/** The same as texts: how policies are asked for and stored. */
export interface NetworkRules {
  readonly allow: readonly string[];
  readonly deny: readonly string[];
}

export const openPolicy: NetworkPolicy = Object.freeze({ allow: Object.freeze([]), deny: Object.freeze([]) });

/** What the owner wrote. */
export function ruleTexts(policy: NetworkPolicy): NetworkRules {
  return { allow: policy.allow.map((rule) => rule.text), deny: policy.deny.map((rule) => rule.text) };
}
