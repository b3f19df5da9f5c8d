import { createHash } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import { PaddockError } from '../../../core/errors.ts';
import { parseSecretId, type SecretId } from '../../../core/ids.ts';
import type { SecretRule } from '../../../core/network/inspection.ts';
import { parseHostPattern } from '../../../core/secrets/hosts.ts';
import { defaultEnvironment } from '../../../core/secrets/names.ts';
import { providerOf, providers, type Provider } from '../../../core/secrets/providers.ts';
import { secretRule } from '../../../core/secrets/rules.ts';
import type { ListedUse, Secret } from '../../../core/secrets/secret.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { parsePublicId } from '../ids.ts';
import { withoutNulls } from '../nulls.ts';
import { timestamp } from '../present.ts';
import { SandboxParams } from '../schemas/common.ts';
import { CheckBody, NameBody, NewSecretBody, ScopesBody, SecretParams, TeamParams, UsesQuery, ValueBody } from '../schemas/vault.ts';
import { ruleOf, scopesOf } from '../scopes.ts';

/** What the clients call the one team that an account has here. */
const teamName = 'default';
const defaultUses = 100;

/** Teams, their environments and secrets (contract, section 2.13). */
export function vaultRoutes(app: Scope, { secrets, secretAttachments }: RouteDependencies): void {
  const nullsOff = async (request: FastifyRequest): Promise<void> => {
    request.body = withoutNulls(request.body);
  };

  app.get('/teams', async (request) => ({ teams: [await team(request)] }));

  app.post('/teams', { schema: { body: NameBody } }, async (request, reply) => {
    const { name } = request.body;
    if (name !== teamName) throw new PaddockError('unprocessable', `An account has one team here, "${teamName}": use environments to keep secrets apart.`, { field: 'name' });
    return reply.code(201).send(await team(request));
  });

  app.get('/teams/:teamId/environments', { schema: { params: TeamParams } }, async (request) => {
    assertTeam(request);
    return { environments: (await secrets.environments(request.principal)).map((name) => environment(request, name)) };
  });

  app.post('/teams/:teamId/environments', { schema: { params: TeamParams, body: NameBody } }, async (request, reply) => {
    assertTeam(request);
    await secrets.addEnvironment(request.principal, request.body.name);
    return reply.code(201).send(environment(request, request.body.name));
  });

  app.get('/teams/:teamId/vault/secrets', { schema: { params: TeamParams } }, async (request) => {
    assertTeam(request);
    return { secrets: (await secrets.list(request.principal)).items.map(present) };
  });

  app.post('/teams/:teamId/vault/secrets', { schema: { params: TeamParams, body: NewSecretBody }, preValidation: nullsOff as never }, async (request, reply) => {
    assertTeam(request);
    const { environment: given, value, provider: wanted, scopes = [], rotation_interval_days: days } = request.body;
    const provider = wanted ? knownProvider(wanted) : null;
    const name = request.body.name || provider?.name;
    if (name === undefined) throw invalid('name', 'is required, unless provider is given');
    if (scopes.length === 0 && provider === null) throw invalid('scopes', 'must have an entry, unless provider is given');
    const rules = scopes.length > 0 ? scopes.map((scope, i) => ruleOf(scope, `scopes[${i}]`)) : presetRules(provider!);
    const secret = await secrets.create(request.principal, { environment: given || defaultEnvironment, name, value, provider: provider?.name ?? null, rules, rotationIntervalDays: days || null });
    return reply.code(201).send(present(secret));
  });

  app.get('/teams/:teamId/vault/secrets/:secretId', { schema: { params: SecretParams } }, async (request) => present(await secrets.get(request.principal, secretId(request))));

  app.post('/teams/:teamId/vault/secrets/:secretId/rotate', { schema: { params: SecretParams, body: ValueBody } }, async (request) => {
    await secrets.rotate(request.principal, secretId(request), request.body.value);
    return {};
  });

  app.post('/teams/:teamId/vault/secrets/:secretId/scopes', { schema: { params: SecretParams, body: ScopesBody }, preValidation: nullsOff as never }, async (request) => {
    const rules = request.body.scopes.map((scope, i) => ruleOf(scope, `scopes[${i}]`));
    await secrets.replaceRules(request.principal, secretId(request), rules);
    return {};
  });

  app.delete('/teams/:teamId/vault/secrets/:secretId', { schema: { params: SecretParams } }, async (request) => {
    await secrets.delete(request.principal, secretId(request));
    return {};
  });

  app.get('/teams/:teamId/vault/secrets/:secretId/audit', { schema: { params: SecretParams, querystring: UsesQuery } }, async (request) => {
    const { limit = defaultUses, before } = request.query;
    const secret = await secrets.get(request.principal, secretId(request));
    return { entries: (await secrets.uses(secret, { limit, ...(before === undefined ? {} : { before }) })).map(presentUse) };
  });

  app.get('/vault/presets', async () => ({ presets: providers.map(presentPreset) }));

  app.post('/sandboxes/:id/vault/check', { schema: { params: SandboxParams, body: CheckBody } }, async (request) => {
    const { env, url, method = 'GET' } = request.body;
    return secretAttachments.check(request.principal, parsePublicId(request.params.id), env, url, method);
  });

  async function team(request: FastifyRequest): Promise<object> {
    return { team_id: request.principal.teamId, name: teamName, created_at: timestamp(await secrets.teamMadeAt(request.principal)) };
  }

  function present(secret: Secret): object {
    const due = secrets.rotationDue(secret);
    return {
      secret_id: secret.id,
      name: secret.name,
      team_id: secret.teamId,
      env_id: environmentId(secret.teamId, secret.environment),
      environment: secret.environment,
      ...(secret.provider === null ? {} : { provider: secret.provider }),
      scopes: scopesOf(secret.rules),
      created_at: timestamp(secret.createdAt),
      updated_at: timestamp(secret.updatedAt),
      ...(secret.rotatedAt === null ? {} : { rotated_at: timestamp(secret.rotatedAt) }),
      ...(secret.rotationIntervalDays === null ? {} : { rotation_interval_days: secret.rotationIntervalDays, rotation_due: due }),
    };
  }
}

type WithTeam = Pick<FastifyRequest, 'params' | 'principal'>;

/** Another team is as little there as one that nobody has. */
function assertTeam({ params, principal }: WithTeam): void {
  const { teamId } = params as { teamId: string };
  if (teamId !== principal.teamId) throw new PaddockError('not_found', `Team ${teamId.slice(0, 128)} not found`);
}

function secretId(request: WithTeam): SecretId {
  assertTeam(request);
  const { secretId: text } = request.params as { secretId: string };
  const id = parseSecretId(text);
  if (id === null) throw new PaddockError('not_found', `Secret ${text.slice(0, 128)} not found`);
  return id;
}

function environment({ principal }: WithTeam, name: string): object {
  return { env_id: environmentId(principal.teamId, name), name };
}

/** Environments have names; the clients want an id as well. Always the same one for a name. */
function environmentId(teamId: string, name: string): string {
  return `env-${createHash('sha256').update(`paddock environment ${teamId} ${name}`).digest('hex').slice(0, 16)}`;
}

function knownProvider(name: string): Provider {
  const provider = providerOf(name);
  if (provider === undefined) throw invalid('provider', `${JSON.stringify(name.slice(0, 80))} is not known; there is ${providers.map((each) => each.name).join(', ')}`);
  return provider;
}

/** What a provider's secret gets without scopes of its own. */
function presetRules({ name, rules }: Provider): SecretRule[] {
  const fields = { hosts: name, header: name, prefix: name, username: name, headers: name, query: name };
  return rules.map(({ hosts, place, presetHeaders }) => secretRule({ hosts: hosts.map((host) => parseHostPattern(host, name)), place, ...(presetHeaders === undefined ? {} : { extraHeaders: presetHeaders }) }, fields));
}

function presentPreset(provider: Provider): object {
  const { name, display, category, keyHint, docsUrl } = provider;
  return { key: name, name: display, category, key_hint: keyHint, docs_url: docsUrl, scopes: scopesOf(presetRules(provider)) };
}

function presentUse({ seq, at, sandboxId, method, host, path, status, upstreamStatus, latencyMs, errorCode }: ListedUse): object {
  return { id: seq, timestamp: timestamp(at), sandbox_id: sandboxId, method, host, path, status_code: status, upstream_status: upstreamStatus, latency_ms: latencyMs, error_code: errorCode };
}

function invalid(field: string, what: string): PaddockError {
  return new PaddockError('invalid_argument', `${field} ${what}.`, { field });
}
