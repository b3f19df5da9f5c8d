import { Type } from 'typebox';
import { PaddockError } from '../../../core/errors.ts';
import type { SecretRule } from '../../../core/network/inspection.ts';
import type { Principal } from '../../../core/principal.ts';
import { parseHostPattern } from '../../../core/secrets/hosts.ts';
import { assertVariableName, defaultEnvironment } from '../../../core/secrets/names.ts';
import { providerOf, providers, type Provider } from '../../../core/secrets/providers.ts';
import { secretRule } from '../../../core/secrets/rules.ts';
import type { ListedUse, Secret } from '../../../core/secrets/secret.ts';
import { shapeOf } from '../../../core/secrets/stand-in.ts';
import type { UseQuery } from '../../../core/secrets/store.ts';
import type { Sandbox } from '../../../core/sandbox.ts';
import { bodyReader, optional, strict } from '../body.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { badRequest } from '../errors.ts';
import { parseId } from '../ids.ts';
import { choice, parsePage, single, type RawQuery } from '../list-query.ts';
import { timestamp } from '../present.ts';
import { Auth, presentAuth, readAuth, type AuthBody } from '../secret-auth.ts';
import { statusOf } from '../status.ts';
import { notFound, SandboxParams } from './sandboxes.ts';

const readNew = bodyReader(strict({ name: optional(Type.String()), value: optional(Type.String()), provider: optional(Type.String()), auth: optional(Auth), hosts: optional(Type.Array(Type.String())) }));
const readValue = bodyReader(strict({ value: optional(Type.String()) }));
const readAttach = bodyReader(strict({ env_key: optional(Type.String()), secret_name: optional(Type.String()) }));
const readCheck = bodyReader(strict({ env_key: optional(Type.String()), url: optional(Type.String()), method: optional(Type.String()) }));

const NameParams = Type.Object({ name: Type.String() });
const BindingParams = Type.Object({ id: Type.String(), envKey: Type.String() });

const secretName = /^[A-Za-z_][A-Za-z0-9_-]{0,127}$/;
const defaultUses = 50;
const mostUses = 1000;
const statusRanges = { '2xx': [200, 299], '3xx': [300, 399], '4xx': [400, 499], '5xx': [500, 599], errors: [400, 999] } as const;

/** The team's secrets, where they are bound and what was done with them (contract, section 11). They are those of the environment `prod`. */
export function secretRoutes(app: Scope, { secrets, secretAttachments, sandboxes }: RouteDependencies): void {
  app.post('/secrets', async (request, reply) => {
    const { name, value, provider, auth, hosts } = readNew(request.body);
    if (name === undefined || !secretName.test(name)) throw badRequest('name', `must match ${secretName.source}${name === undefined ? '' : `, but is ${JSON.stringify(name.slice(0, 80))}`}`);
    if (value === undefined) throw badRequest('value', 'is required');
    const rules = readRules(provider, auth as AuthBody | undefined, hosts);
    const secret = await secrets.create(request.principal, { environment: defaultEnvironment, name, value, provider: provider ?? null, rules, rotationIntervalDays: null });
    return reply.code(201).send(present(secret));
  });

  app.get('/secrets', async (request, reply) => {
    const { limit, offset } = parsePage(request.query as RawQuery);
    const { items, total } = await secrets.list(request.principal, { environment: defaultEnvironment, offset, ...(limit === null ? {} : { limit }) });
    return reply.header('x-total-count', total).send(items.map(present));
  });

  app.get('/secrets/:name', { schema: { params: NameParams } }, async (request) => present(await named(request.principal, request.params.name)));

  app.patch('/secrets/:name', { schema: { params: NameParams } }, async (request) => {
    const { value } = readValue(request.body);
    const secret = await named(request.principal, request.params.name);
    if (value === undefined) throw badRequest('value', 'is required');
    return present(await secrets.rotate(request.principal, secret.id, value));
  });

  app.delete('/secrets/:name', { schema: { params: NameParams } }, async (request, reply) => {
    await secrets.delete(request.principal, (await named(request.principal, request.params.name)).id);
    return reply.code(204).send();
  });

  app.get('/secrets/:name/audit', { schema: { params: NameParams } }, async (request) => {
    const query = usesQuery(request.query as RawQuery);
    return (await secrets.uses(await named(request.principal, request.params.name), query)).map(presentUse);
  });

  app.get('/secrets/:name/sandboxes', { schema: { params: NameParams } }, async (request) => {
    const usage = await secrets.usage(await named(request.principal, request.params.name));
    return usage.map(({ sandboxId, sandboxName, variable, state }) => ({ sandbox_id: sandboxId, sandbox_name: sandboxName, env_key: variable, status: statusOf({ state, end: null }) }));
  });

  app.get('/providers', async () => providers.map(presentProvider));

  app.post('/sandboxes/:id/secrets', { schema: { params: SandboxParams } }, async (request, reply) => {
    const { env_key: variable, secret_name: name } = readAttach(request.body);
    const sandbox = await existing(request.principal, request.params.id);
    if (variable === undefined) throw badRequest('env_key', 'is required');
    assertVariableName(variable, 'env_key');
    if (!name) throw badRequest('secret_name', 'is required');
    await secretAttachments.attach(request.principal, { id: sandbox.id }, { variable, environment: defaultEnvironment, name, when: 'stand-in' });
    return reply.code(201).send({ env_key: variable, secret_name: name });
  });

  app.delete('/sandboxes/:id/secrets/:envKey', { schema: { params: BindingParams } }, async (request, reply) => {
    const sandbox = await existing(request.principal, request.params.id);
    await secretAttachments.detach(request.principal, { id: sandbox.id }, request.params.envKey);
    return reply.code(204).send();
  });

  app.post('/sandboxes/:id/secrets/check', { schema: { params: SandboxParams } }, async (request) => {
    const { env_key: variable, url, method } = readCheck(request.body);
    const sandbox = await existing(request.principal, request.params.id);
    if (!variable) throw badRequest('env_key', 'is required');
    if (!url) throw badRequest('url', 'is required');
    return secretAttachments.check(request.principal, { id: sandbox.id }, variable, url, method || 'GET');
  });

  async function named(principal: Principal, name: string): Promise<Secret> {
    try {
      return await secrets.named(principal, defaultEnvironment, name);
    } catch (error) {
      if (PaddockError.from(error).code !== 'not_found') throw error;
      throw new PaddockError('not_found', `there is no secret ${JSON.stringify(name.slice(0, 80))}; it may have been deleted, or belong to another team`, {}, { cause: error });
    }
  }

  async function existing(principal: Principal, id: string): Promise<Sandbox> {
    const sandbox = await sandboxes.get(principal, parseId(id));
    if (statusOf(sandbox) === 'deleted') throw notFound(id);
    return sandbox;
  }
}

/** By the provider's name, or by a rule and hosts of one's own. */
function readRules(providerName: string | undefined, auth: AuthBody | undefined, hosts: readonly string[] | undefined): readonly SecretRule[] {
  if (providerName === undefined) {
    if (auth === undefined) throw badRequest('auth', 'is required, unless provider is given');
    if (hosts === undefined) throw badRequest('hosts', 'is required with auth');
    return readAuth(auth, hosts);
  }
  if (auth !== undefined || hosts !== undefined) throw badRequest(auth === undefined ? 'hosts' : 'auth', 'and provider exclude each other: a provider has its own');
  const provider = providerOf(providerName);
  if (provider === undefined) throw badRequest('provider', `"${providerName.slice(0, 80)}" is not known; there is ${providers.map(({ name }) => name).join(', ')}`);
  return rulesOf(provider);
}

function rulesOf({ name, rules }: Provider): readonly SecretRule[] {
  const fields = { hosts: name, header: name, prefix: name, username: name, headers: name, query: name };
  return rules.map(({ hosts, place }) => secretRule({ hosts: hosts.map((host) => parseHostPattern(host, name)), place }, fields));
}

function presentProvider(provider: Provider): object {
  return { name: provider.name, display: provider.display, ...presentAuth(rulesOf(provider)), token_shape: shapeOf(provider.standIn) };
}

function present(secret: Secret): object {
  return {
    id: secret.id,
    name: secret.name,
    ...presentAuth(secret.rules),
    ...(secret.provider === null ? {} : { provider_shortcut: secret.provider }),
    created_at: timestamp(secret.createdAt),
    updated_at: timestamp(secret.updatedAt),
    ...(secret.lastUsedAt === null ? {} : { last_used_at: timestamp(secret.lastUsedAt) }),
  };
}

function usesQuery(raw: RawQuery): UseQuery {
  const [limit, before] = [single(raw, 'limit'), single(raw, 'before')];
  const status = choice(raw, 'status', ['', '2xx', '3xx', '4xx', '5xx', 'errors'] as const, '');
  return {
    limit: limit ? Math.min(wholeNumber('limit', limit), mostUses) : defaultUses,
    ...(before ? { before: wholeNumber('before', before) } : {}),
    ...(status === '' ? {} : { status: statusRanges[status] }),
  };
}

function wholeNumber(field: string, text: string): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : 0;
  if (value < 1) throw badRequest(field, `must be a whole number from 1, but is "${text.slice(0, 40)}"`);
  return value;
}

function presentUse(use: ListedUse): object {
  return {
    id: use.seq,
    ts: new Date(use.at).toISOString(),
    sandbox_id: use.sandboxId,
    ...(use.sandboxName === null ? {} : { sandbox_name: use.sandboxName }),
    secret_id: use.secretId,
    method: use.method,
    host: use.host,
    path: use.path,
    status: use.status,
    ...(use.upstreamStatus === null ? {} : { upstream_status: use.upstreamStatus }),
    latency_ms: use.latencyMs,
    ...(use.errorCode === null ? {} : { error_code: use.errorCode }),
  };
}
