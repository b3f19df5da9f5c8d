import { Type, type Static } from 'typebox';
import type { CreateSandbox, SecretsInput } from '../../core/create-input.ts';
import type { CreateFromSnapshot } from '../../core/forks.ts';
import type { Lap } from '../../core/host.ts';
import type { SnapshotId } from '../../core/ids.ts';
import { ruleTexts, type NetworkPolicy } from '../../core/network/rules.ts';
import type { PolicyRequest } from '../../core/policy.ts';
import type { EnforcedPolicy, Lifecycle } from '../../core/sandbox.ts';
import { defaultEnvironment } from '../../core/secrets/names.ts';
import type { TemplateCatalog } from '../../core/template.ts';
import { bodyReader, optional, strict, StringMap, type Present } from './body.ts';
import { badRequest } from './errors.ts';
import { isUuid, templateUuid } from './ids.ts';
import { assertAutoDeleteSeconds, assertEnvVars, assertMetadata, assertName, assertSecretBindings, assertTimeoutSeconds } from './limits.ts';
import { Network, readNetwork } from './network-rules.ts';
import type { SuperserveSettings } from './settings.ts';

export const CreateBody = strict({
  name: optional(Type.String()),
  from_template: optional(Type.String()),
  from_snapshot: optional(Type.String()),
  timeout_seconds: optional(Type.Integer()),
  auto_delete_seconds: optional(Type.Integer()),
  metadata: optional(StringMap),
  env_vars: optional(StringMap),
  secrets: optional(StringMap),
  network: optional(Network),
  preview_access: optional(Type.String()),
});

const readBody = bodyReader(CreateBody, {
  fields: ['template', 'timeout', 'envs', 'security', 'lifecycle', 'volumes', 'vault_refs', 'secure'],
  advice: 'belongs to the Declaw API, which this server has at its root: set DECLAW_DOMAIN (or DECLAW_API_URL) to this server without /superserve.',
});

export const defaultTemplate = 'superserve/base';

/** A checked create. */
export interface CreateRequest {
  readonly name: string;
  readonly body: Present<Static<typeof CreateBody>>;
  readonly network: NetworkPolicy | null;
  readonly previews: 'public' | 'private' | undefined;
}

/**
 * Checks the body of `POST /sandboxes`. The order is the contract's (section 4.2): the first failure is what is told.
 *
 * @throws PaddockError or SuperserveError naming field and limit.
 */
export function readCreate(received: unknown): CreateRequest {
  const body = readBody(received);
  const name = assertName(body.name);
  if (body.timeout_seconds !== undefined) assertTimeoutSeconds(body.timeout_seconds);
  if (body.auto_delete_seconds !== undefined) assertAutoDeleteSeconds(body.auto_delete_seconds);
  const network = body.network === undefined ? null : readNetwork(body.network);
  assertMetadata(body.metadata ?? {});
  assertEnvVars(body.env_vars ?? {});
  const previews = readPreviewAccess(body.preview_access);
  assertSecretBindings(body.secrets ?? {}, body.env_vars ?? {});
  return { name, body, network, previews };
}

/** The rest, which the contract has behind the look at the secrets. */
export function readOrigin({ body }: CreateRequest): SnapshotId | null {
  if (body.from_template !== undefined && body.from_snapshot !== undefined) throw badRequest('from_template', 'and from_snapshot exclude each other: give one of them');
  if (body.from_snapshot !== undefined && !isUuid(body.from_snapshot)) throw badRequest('from_snapshot', `must be a lowercase UUID, but is "${body.from_snapshot.slice(0, 80)}"`);
  return (body.from_snapshot as SnapshotId | undefined) ?? null;
}

/** A create from a template in the words of the core. */
export function createInput({ name, body, network, previews }: CreateRequest, catalog: TemplateCatalog, settings: SuperserveSettings, lap: Lap): CreateSandbox {
  return {
    wire: 'superserve',
    name,
    templateName: templateNameOf(body.from_template, catalog),
    timeoutSeconds: settings.timeout === 'auto_pause' ? (body.timeout_seconds ?? 0) : 0,
    metadata: body.metadata ?? {},
    envs: body.env_vars ?? {},
    lifecycle: lifecycleOf(body, settings),
    declared: {},
    policy: { network: network === null ? {} : rulesOf(network), previews: previews ?? settings.previews },
    secrets: secretsOf(body.secrets ?? {}),
    defaultUser: 'root',
    lap,
  };
}

/** The same from a snapshot: what is not given is as it was there. */
export function createFromSnapshot({ name, body, network, previews }: CreateRequest, captured: EnforcedPolicy, settings: SuperserveSettings, lap: Lap): CreateFromSnapshot {
  const { timeout_seconds: timeout, auto_delete_seconds: autoDelete } = body;
  const timed = timeout !== undefined || autoDelete !== undefined;
  const policy: PolicyRequest = {
    network: { ...rulesOf(network ?? captured.network), allowPublicTraffic: captured.allowPublicTraffic, ...(captured.maskRequestHost === null ? {} : { maskRequestHost: captured.maskRequestHost }) },
    security: { audit: { enabled: captured.audit } },
    previews: previews ?? settings.previews,
  };
  return {
    wire: 'superserve',
    name,
    metadata: body.metadata ?? {},
    envs: body.env_vars ?? {},
    secrets: secretsOf(body.secrets ?? {}),
    policy,
    declared: {},
    ...(timeout === undefined || settings.timeout === 'hard_cap' ? {} : { timeoutSeconds: timeout }),
    ...(timed ? { lifecycle: lifecycleOf(body, settings) } : {}),
    lap,
  };
}

/** Their variables get texts that look like real keys; the secret goes where such a text is, and nowhere else. */
function secretsOf(secrets: Readonly<Record<string, string>>): SecretsInput {
  return { field: 'secrets', bindings: Object.entries(secrets).map(([variable, name]) => ({ variable, environment: defaultEnvironment, name, when: 'stand-in' })) };
}

/** Whatever `timeout_seconds` means, a period that is over ends in a pause: nothing else of this wire gives one. */
function lifecycleOf(body: { readonly timeout_seconds?: number | undefined; readonly auto_delete_seconds?: number | undefined }, settings: SuperserveSettings): Lifecycle {
  return {
    onTimeout: 'pause',
    autoResume: false,
    maxLifetimeSeconds: settings.timeout === 'hard_cap' ? (body.timeout_seconds ?? null) : null,
    autoDeleteSeconds: body.auto_delete_seconds ?? null,
  };
}

function rulesOf(network: NetworkPolicy): { readonly allowOut: readonly string[]; readonly denyOut: readonly string[] } {
  const { allow, deny } = ruleTexts(network);
  return { allowOut: allow, denyOut: deny };
}

export function readPreviewAccess(text: string | undefined): 'public' | 'private' | undefined {
  if (text !== undefined && text !== 'public' && text !== 'private') throw badRequest('preview_access', `must be public or private, but is "${text.slice(0, 80)}"`);
  return text;
}

/** By name, or by the UUID that this wire shows. What is unknown stays as it is, for the core to say so. */
function templateNameOf(asked: string | undefined, catalog: TemplateCatalog): string {
  if (asked === undefined || asked === '') return defaultTemplate;
  if (!isUuid(asked)) return asked;
  return [...catalog.list().map((each) => each.name), ...(catalog.pending?.() ?? []), ...(catalog.offered?.() ?? [])].find((name) => templateUuid(name) === asked) ?? asked;
}
