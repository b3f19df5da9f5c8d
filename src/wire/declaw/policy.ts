import { Compile } from 'typebox/compile';
import type { NetworkRequest, PolicyRequest, SecurityRequest } from '../../core/policy.ts';
import { PaddockError } from '../../core/errors.ts';
import type { VolumeAttachment } from '../../core/volume-attachments.ts';
import { describeFindings } from '../validation.ts';
import { parseVolumeName } from './ids.ts';
import { withoutNulls } from './nulls.ts';
import { SecurityPolicy, type NetworkBody, type SecurityPolicyBody } from './schemas/security.ts';
import type { CreateBodyType } from './schemas/sandboxes.ts';

const policySchema = Compile(SecurityPolicy);

/**
 * The rules that a create asks for, in the words of the core: envelopes, shorthands, aliases and defaults taken apart.
 *
 * @throws PaddockError `invalid_argument` with the path of the field and what is allowed.
 */
export function policyRequest(body: CreateBodyType): PolicyRequest {
  return {
    ...(body.network === undefined ? {} : { network: networkRequest(body.network) }),
    ...(body.security === undefined ? {} : { security: readSecurity(body.security) }),
    ...(body.volumes === undefined ? {} : { volumes: body.volumes.map((volume, i) => attachment(volume, `volumes[${i}]`)) }),
  };
}

function attachment({ volume_id: id, mount_path: mountPath, mode = 'copy', subpath, ...unknown }: NonNullable<CreateBodyType['volumes']>[number], path: string): VolumeAttachment {
  // Such as a write-back, which a mount makes unnecessary: whoever asks for it must not believe to have it.
  const [field] = Object.keys(unknown);
  if (field !== undefined) throw new PaddockError('invalid_argument', `${path}.${field.slice(0, 80)} is not known here; an attachment has volume_id, mount_path, mode and subpath`, { field: `${path}.${field}` });
  return { volumeId: parseVolumeName(id), mountPath, mode, ...(subpath === undefined || subpath === '' ? {} : { subpath }) };
}

/** A `security` value in either envelope: the policy itself, or its JSON text under `policy_json`. */
export function readSecurity(received: unknown): SecurityRequest {
  const policy = withoutNulls(openEnvelope(received));
  if (!policySchema.Check(policy)) throw describeFindings(policySchema.Errors(policy), 'security');
  return securityRequest(policy);
}

function openEnvelope(received: unknown): unknown {
  const text = (received as { policy_json?: unknown }).policy_json;
  if (typeof text !== 'string') return received;
  try {
    return JSON.parse(text);
  } catch {
    throw new PaddockError('invalid_argument', 'security.policy_json must be the JSON text of a policy, but is not valid JSON.', { field: 'security.policy_json' });
  }
}

function securityRequest(policy: SecurityPolicyBody): SecurityRequest {
  const { pii, injection_defense: injection, audit, env_security: env, network, code_security: code, invisible_text: invisible } = policy;
  return {
    pii: { ...scoped(pii), ...present({ types: pii?.types?.map((type) => (type === 'phone_number' ? 'phone' : type)), action: pii?.action, rehydrate: pii?.rehydrate_response }) },
    injectionDefense: typeof injection === 'boolean' ? { enabled: injection } : injectionRequest(injection),
    ...(typeof injection === 'object' && injection.judge?.enabled === true ? { injectionJudge: { enabled: true } } : {}),
    transformations: policy.transformations ?? [],
    audit: typeof audit === 'boolean' ? { enabled: audit } : { enabled: audit?.enabled ?? true },
    envSecurity: {
      ...(env?.mask_patterns === undefined ? {} : { maskPatterns: env.mask_patterns }),
      ...(env?.sensitive_vars === undefined ? {} : { sensitiveVars: env.sensitive_vars }),
    },
    ...(network === undefined ? {} : { network: networkRequest(network) }),
    toxicity: { ...scoped(policy.toxicity), ...present({ threshold: policy.toxicity?.threshold, action: policy.toxicity?.action }) },
    codeSecurity: { ...scoped(code), ...present({ threshold: code?.threshold, action: code?.action, excludedLanguages: code?.excluded_languages, detectSuspiciousImports: code?.detect_suspicious_imports }) },
    invisibleText: { ...scoped(invisible), ...present({ action: invisible?.action, detectZeroWidth: invisible?.detect_zero_width }) },
    contentGate: scoped(policy.content_gate),
    customPolicy: on(policy.custom_policy),
  };
}

function injectionRequest(injection: Exclude<SecurityPolicyBody['injection_defense'], boolean>): NonNullable<SecurityRequest['injectionDefense']> {
  // `log` and `sanitize` are names of older clients for what only looks.
  const action = injection?.action === 'block' || injection?.action === undefined ? injection?.action : 'log_only';
  return { ...scoped(injection), ...present({ action, sensitivity: injection?.sensitivity, threshold: injection?.threshold, mode: injection?.injection_mode }) };
}

/** Lists and switches of a `network` value, in the words of the core. */
export function networkRequest(network: NetworkBody): NetworkRequest {
  return {
    ...(network.allow_out === undefined ? {} : { allowOut: network.allow_out }),
    ...(network.deny_out === undefined ? {} : { denyOut: network.deny_out }),
    ...(network.allow_public_traffic === undefined ? {} : { allowPublicTraffic: network.allow_public_traffic }),
    ...(network.mask_request_host === undefined ? {} : { maskRequestHost: network.mask_request_host }),
  };
}

function on(section: { enabled?: boolean } | undefined): { enabled: boolean } {
  return { enabled: section?.enabled ?? false };
}

function scoped(section: { enabled?: boolean; domains?: string[] } | undefined): { enabled: boolean; domains?: readonly string[] } {
  return { ...on(section), ...(section?.domains === undefined ? {} : { domains: section.domains }) };
}

/** Without what is not said. */
function present<T extends object>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
}
