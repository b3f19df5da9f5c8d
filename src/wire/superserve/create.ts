import { Type } from 'typebox';
import type { CreateSandbox } from '../../core/create-input.ts';
import type { Lap } from '../../core/host.ts';
import { ruleTexts } from '../../core/network/rules.ts';
import type { TemplateCatalog } from '../../core/template.ts';
import { bodyReader, optional, strict, StringMap } from './body.ts';
import { badRequest, SuperserveError } from './errors.ts';
import { isUuid, templateUuid } from './ids.ts';
import { assertAutoDeleteSeconds, assertEnvVars, assertMetadata, assertName, assertSecretBindings, assertTimeoutSeconds } from './limits.ts';
import { Network, readNetwork } from './network-rules.ts';
import type { SuperserveSettings } from './settings.ts';

const CreateBody = strict({
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

/**
 * `POST /sandboxes` in the words of the core. The order of the checks is the contract's (section 4.2): the first failure is what is told.
 *
 * @throws PaddockError or SuperserveError naming field and limit.
 */
export function createInput(received: unknown, catalog: TemplateCatalog, settings: SuperserveSettings, lap: Lap): CreateSandbox {
  const body = readBody(received);
  const name = assertName(body.name);
  if (body.timeout_seconds !== undefined) assertTimeoutSeconds(body.timeout_seconds);
  if (body.auto_delete_seconds !== undefined) assertAutoDeleteSeconds(body.auto_delete_seconds);
  const network = readNetwork(body.network ?? {});
  const metadata = body.metadata ?? {};
  assertMetadata(metadata);
  const envVars = body.env_vars ?? {};
  assertEnvVars(envVars);
  const previews = readPreviewAccess(body.preview_access) ?? settings.previews;
  const secrets = body.secrets ?? {};
  assertSecretBindings(secrets, envVars);
  if (body.from_template !== undefined && body.from_snapshot !== undefined) throw badRequest('from_template', 'and from_snapshot exclude each other: give one of them');
  if (body.from_snapshot !== undefined && !isUuid(body.from_snapshot)) throw badRequest('from_snapshot', `must be a lowercase UUID, but is "${body.from_snapshot.slice(0, 80)}"`);
  const [secret] = Object.values(secrets);
  if (secret !== undefined) throw new SuperserveError(400, 'secret_not_found', `there is no secret "${secret.slice(0, 128)}"; this version of Paddock has none yet`);
  if (body.from_snapshot !== undefined) throw new SuperserveError(404, 'snapshot_not_found', `there is no snapshot ${body.from_snapshot}`);
  const { allow: allowOut, deny: denyOut } = ruleTexts(network);
  return {
    wire: 'superserve',
    name,
    templateName: templateNameOf(body.from_template, catalog),
    timeoutSeconds: body.timeout_seconds ?? 0,
    metadata,
    envs: envVars,
    lifecycle: { onTimeout: 'kill', autoResume: false },
    declared: {},
    policy: { network: { allowOut, denyOut }, previews },
    defaultUser: 'root',
    wireEnv: () => ({}),
    hostname: ({ id }) => `sandbox-${id.slice(0, 8)}`,
    lap,
  };
}

export function readPreviewAccess(text: string | undefined): 'public' | 'private' | undefined {
  if (text !== undefined && text !== 'public' && text !== 'private') throw badRequest('preview_access', `must be public or private, but is "${text.slice(0, 80)}"`);
  return text;
}

/** By name, or by the UUID that this wire shows. What is unknown stays as it is, for the core to say so. */
function templateNameOf(asked: string | undefined, catalog: TemplateCatalog): string {
  if (asked === undefined || asked === '') return defaultTemplate;
  if (!isUuid(asked)) return asked;
  return [...catalog.list().map((each) => each.name), ...(catalog.pending?.() ?? [])].find((name) => templateUuid(name) === asked) ?? asked;
}
