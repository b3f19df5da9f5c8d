import { PaddockError } from '../core/errors.ts';
import { type Guardrails, guardrailsRequest, type GuardrailsRequest, parseGuardrails } from '../core/guardrails/guardrails.ts';
import { parsePolicy } from '../core/network/parse.ts';
import { ruleTexts, type NetworkPolicy, type NetworkRules } from '../core/network/rules.ts';
import type { VolumeMount } from '../core/host.ts';
import type { EnforcedPolicy, PreviewAccess } from '../core/sandbox.ts';

/** As stored: rules are texts. What older versions did not know is missing. */
interface StoredPolicy {
  readonly allowPublicTraffic: boolean;
  readonly audit: boolean;
  readonly network?: NetworkRules;
  readonly maskRequestHost?: string | null;
  readonly previews?: PreviewAccess;
  readonly guardrails?: GuardrailsRequest;
  readonly volumes?: readonly VolumeMount[];
}

const mostRemembered = 1000;

/** Nothing was reachable from a sandbox of that time, and its owner has not said what should be. */
const beforeNetworks: NetworkRules = { allow: [], deny: ['0.0.0.0/0'] };

/**
 * Policies between their row and their value. Rows are read far more often than policies change, and parsing a thousand rules takes
 * milliseconds: the same text gives the same value again.
 */
export class Policies {
  readonly #parsed = new Map<string, EnforcedPolicy>();

  write(policy: EnforcedPolicy): string {
    const { allowPublicTraffic, audit, network, maskRequestHost, previews, guardrails, volumes } = policy;
    const row: StoredPolicy = { allowPublicTraffic, audit, network: ruleTexts(network), maskRequestHost, previews, ...(guardrails === undefined ? {} : { guardrails: guardrailsRequest(guardrails) }), ...(volumes === undefined ? {} : { volumes }) };
    return JSON.stringify(row);
  }

  read(text: string): EnforcedPolicy {
    const known = this.#parsed.get(text);
    if (known !== undefined) return known;
    const row = JSON.parse(text) as StoredPolicy;
    const policy: EnforcedPolicy = Object.freeze({
      allowPublicTraffic: row.allowPublicTraffic,
      audit: row.audit,
      network: networkOf(row.network ?? beforeNetworks),
      maskRequestHost: row.maskRequestHost ?? null,
      previews: row.previews ?? 'private',
      ...guardrailsOf(row.guardrails),
      ...(row.volumes === undefined ? {} : { volumes: row.volumes }),
    });
    if (this.#parsed.size >= mostRemembered) this.#parsed.clear();
    this.#parsed.set(text, policy);
    return policy;
  }
}

function guardrailsOf(request: GuardrailsRequest | undefined): { guardrails?: Guardrails } {
  if (request === undefined) return {};
  try {
    const guardrails = parseGuardrails(request);
    return guardrails === null ? {} : { guardrails };
  } catch (cause) {
    throw new PaddockError('internal', `the stored guardrails cannot be read: ${(cause as Error).message}`, {}, { cause });
  }
}

function networkOf(rules: NetworkRules): NetworkPolicy {
  try {
    return parsePolicy(rules);
  } catch (cause) {
    // Never open what cannot be read: the row was damaged, or written by another version.
    throw new PaddockError('internal', `the stored network rules cannot be read: ${(cause as Error).message}`, {}, { cause });
  }
}
