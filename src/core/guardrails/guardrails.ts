import { PaddockError } from '../errors.ts';
import { parseDomains } from '../network/parse.ts';
import type { DestinationRule } from '../network/rules.ts';
import { InvalidTransformation, parseTransformations, type TransformationRule } from './transformations.ts';

export const piiTypes = ['ssn', 'credit_card', 'email', 'phone', 'person_name', 'api_key', 'address', 'ip_address'] as const;
/** The kinds of personal data that can be looked for. */
export type PiiType = (typeof piiTypes)[number];

export const sensitivities = ['low', 'medium', 'high'] as const;
export type Sensitivity = (typeof sensitivities)[number];

export const injectionModes = ['strict', 'balanced', 'permissive', 'agentic-tool', 'data-egress-sensitive'] as const;
export type InjectionMode = (typeof injectionModes)[number];

/** Which hosts a guardrail is for; empty means every one. */
export type GuardedHosts = readonly DestinationRule[];

export interface PiiRules {
  readonly types: readonly PiiType[];
  readonly action: 'redact' | 'block' | 'log_only';
  /** Whether tokens in answers become values again. */
  readonly rehydrate: boolean;
  readonly hosts: GuardedHosts;
}

export interface InjectionRules {
  readonly action: 'block' | 'log_only';
  /** 0 to 1. */
  readonly threshold: number;
  readonly sensitivity: Sensitivity;
  readonly mode: InjectionMode;
  /** Never empty. */
  readonly hosts: GuardedHosts;
}

export interface ToxicityRules {
  readonly action: 'block' | 'log_only';
  /** A score of this or more, 0 to 1, is too high. */
  readonly threshold: number;
  readonly hosts: GuardedHosts;
}

export interface CodeSecurityRules extends ToxicityRules {
  readonly excludedLanguages: readonly string[];
  readonly detectSuspiciousImports: boolean;
}

export interface InvisibleTextRules {
  readonly action: 'block' | 'strip' | 'log_only';
  readonly detectZeroWidth: boolean;
  readonly hosts: GuardedHosts;
}

/** What is looked for in the traffic of a sandbox, read and with its defaults. Null is: not at all. */
export interface Guardrails {
  readonly invisibleText: InvisibleTextRules | null;
  readonly transformations: readonly TransformationRule[];
  readonly pii: PiiRules | null;
  readonly injection: InjectionRules | null;
  readonly toxicity: ToxicityRules | null;
  readonly codeSecurity: CodeSecurityRules | null;
}

interface Asked {
  readonly enabled: boolean;
  readonly domains?: readonly string[] | undefined;
}

/** The same as a request has it, and as it is stored; what is missing has its default. */
export interface GuardrailsRequest {
  /** No types mean all of them. */
  readonly pii?: (Asked & { readonly types?: readonly PiiType[] | undefined; readonly action?: PiiRules['action'] | undefined; readonly rehydrate?: boolean | undefined }) | undefined;
  /** Without domains it scans nothing. */
  readonly injectionDefense?: (Asked & { readonly sensitivity?: Sensitivity | undefined; readonly action?: InjectionRules['action'] | undefined; readonly threshold?: number | undefined; readonly mode?: InjectionMode | undefined }) | undefined;
  readonly transformations?: readonly unknown[] | undefined;
  readonly toxicity?: (Asked & { readonly threshold?: number | undefined; readonly action?: ToxicityRules['action'] | undefined }) | undefined;
  readonly codeSecurity?: (Asked & { readonly threshold?: number | undefined; readonly action?: CodeSecurityRules['action'] | undefined; readonly excludedLanguages?: readonly string[] | undefined; readonly detectSuspiciousImports?: boolean | undefined }) | undefined;
  readonly invisibleText?: (Asked & { readonly action?: InvisibleTextRules['action'] | undefined; readonly detectZeroWidth?: boolean | undefined }) | undefined;
}

/** What a client sends that was told nothing. */
export const defaultInjectionThreshold = 0.95;
const defaultToxicityThreshold = 0.9;
const defaultCodeThreshold = 0.6;

/**
 * Reads what a policy asks for; null when it asks for nothing.
 *
 * @param path where the policy stands in the request, for messages.
 * @throws PaddockError `invalid_argument` that names the field.
 */
export function parseGuardrails(request: GuardrailsRequest, path = 'security'): Guardrails | null {
  const { pii, injectionDefense: injection, toxicity, codeSecurity, invisibleText } = request;
  const budget = { left: heaviestDomains };
  const hosts = (asked: Asked, name: string): GuardedHosts => parseDomains(asked.domains ?? [], `${path}.${name}.domains`, budget);
  const injectionHosts = injection?.enabled === true ? hosts(injection, 'injection_defense') : [];
  const guardrails: Guardrails = {
    invisibleText: invisibleText?.enabled === true ? { action: invisibleText.action ?? 'strip', detectZeroWidth: invisibleText.detectZeroWidth ?? true, hosts: hosts(invisibleText, 'invisible_text') } : null,
    transformations: readTransformations(request.transformations ?? [], `${path}.transformations`),
    pii: pii?.enabled === true ? { types: pii.types === undefined || pii.types.length === 0 ? piiTypes : [...new Set(pii.types)], action: pii.action ?? 'redact', rehydrate: pii.rehydrate ?? true, hosts: hosts(pii, 'pii') } : null,
    injection:
      injection !== undefined && injectionHosts.length > 0
        ? { action: injection.action ?? 'log_only', threshold: injection.threshold ?? defaultInjectionThreshold, sensitivity: injection.sensitivity ?? 'medium', mode: injection.mode ?? 'balanced', hosts: injectionHosts }
        : null,
    toxicity: toxicity?.enabled === true ? { action: toxicity.action ?? 'block', threshold: toxicity.threshold ?? defaultToxicityThreshold, hosts: hosts(toxicity, 'toxicity') } : null,
    codeSecurity:
      codeSecurity?.enabled === true
        ? {
            action: codeSecurity.action ?? 'log_only',
            threshold: codeSecurity.threshold ?? defaultCodeThreshold,
            excludedLanguages: codeSecurity.excludedLanguages ?? [],
            detectSuspiciousImports: codeSecurity.detectSuspiciousImports ?? true,
            hosts: hosts(codeSecurity, 'code_security'),
          }
        : null,
  };
  const { transformations, ...others } = guardrails;
  return transformations.length === 0 && Object.values(others).every((each) => each === null) ? null : Object.freeze(guardrails);
}

/** What `parseGuardrails` makes the same value of. */
export function guardrailsRequest({ pii, injection, toxicity, codeSecurity, invisibleText, transformations }: Guardrails): GuardrailsRequest {
  const asked = <T extends { readonly hosts: GuardedHosts }>({ hosts, ...rest }: T): Omit<T, 'hosts'> & Asked => ({ ...rest, enabled: true, domains: hosts.map(({ text }) => text) });
  return {
    transformations,
    ...(pii === null ? {} : { pii: asked(pii) }),
    ...(injection === null ? {} : { injectionDefense: asked(injection) }),
    ...(toxicity === null ? {} : { toxicity: asked(toxicity) }),
    ...(codeSecurity === null ? {} : { codeSecurity: asked(codeSecurity) }),
    ...(invisibleText === null ? {} : { invisibleText: asked(invisibleText) }),
  };
}

/** Steps of all patterns of a policy's domains together, as for rules of the network. */
const heaviestDomains = 20_000;

function readTransformations(rules: readonly unknown[], path: string): readonly TransformationRule[] {
  try {
    return parseTransformations(rules).map(({ match, replace, direction }) => ({ match, replace, direction }));
  } catch (cause) {
    if (!(cause instanceof InvalidTransformation)) throw cause;
    const field = `${path}${cause.field}`;
    throw new PaddockError('invalid_argument', `${field} ${cause.message}`, { field }, { cause });
  }
}
