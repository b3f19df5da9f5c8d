import { Type } from 'typebox';
import { PaddockError } from '../../../core/errors.ts';
import type { Principal } from '../../../core/principal.ts';
import { parseBuildId, type BuildId } from '../../../core/templates/template.ts';
import { callerSignal } from '../../caller.ts';
import { sendEventStream } from '../../event-stream.ts';
import { logFrames } from '../build-log.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { badRequest } from '../errors.ts';
import { isUuid, templateUuid } from '../ids.ts';
import { choice, parsePage, single, type RawQuery } from '../list-query.ts';
import { presentBuild, presentOwnTemplate, presentTemplate } from '../present.ts';
import { readTemplateCreate } from '../template-create.ts';

type Presented = Record<string, unknown>;

const TemplateParams = Type.Object({ templateId: Type.String() });
const BuildParams = Type.Object({ templateId: Type.String(), buildId: Type.String() });

const [defaultBuilds, mostBuilds] = [20, 100];

/** The templates that sandboxes can be made from, and their builds (contract, section 7.2). */
export function templateRoutes(app: Scope, { templates, ownTemplates, stopping }: RouteDependencies): void {
  const system = (): Presented[] => [
    ...templates.list().map((each) => presentTemplate(each, 'ready')),
    ...(templates.pending?.() ?? []).map((name) => presentTemplate({ name, ...templates.announced?.(name) }, 'building')),
    ...(templates.offered?.() ?? []).map((name) => presentTemplate({ name, ...templates.announced?.(name) }, 'pending')),
  ];

  app.get('/templates', async (request, reply) => {
    const raw = request.query as RawQuery;
    const prefix = single(raw, 'name_prefix') ?? '';
    const text = (single(raw, 'q') ?? '').toLowerCase();
    const owner = choice(raw, 'owner', ['all', 'team', 'system'] as const, 'all');
    const key = sortKeys[choice(raw, 'sort', ['created_at', 'name', 'status', 'size', 'built_at'] as const, 'created_at')];
    const sign = choice(raw, 'order', ['desc', 'asc'] as const, 'desc') === 'desc' ? -1 : 1;
    const { limit, offset } = parsePage(raw);
    const own = owner === 'system' ? [] : (await ownTemplates.list(request.principal)).map(presentOwnTemplate);
    const found = [...own, ...(owner === 'team' ? [] : system())].filter(({ name }) => String(name).startsWith(prefix) && String(name).toLowerCase().includes(text));
    found.sort((a, b) => sign * compare(a[key], b[key]));
    return reply.header('x-total-count', found.length).send(found.slice(offset, limit === null ? undefined : offset + limit));
  });

  app.post('/templates', async (request, reply) => {
    const { template, build } = await ownTemplates.create(request.principal, readTemplateCreate(request.body));
    return reply.code(202).send({ ...presentOwnTemplate(template), build_id: build.id });
  });

  app.get('/templates/:templateId', { schema: { params: TemplateParams } }, async (request) => {
    const { templateId } = request.params;
    const own = await ownTemplates.find(request.principal, readName(templateId));
    return own === null ? (findSystem(templateId) ?? presentOwnTemplate(await ownTemplates.get(request.principal, templateId))) : presentOwnTemplate(own);
  });

  app.delete('/templates/:templateId', { schema: { params: TemplateParams } }, async (request, reply) => {
    await ownTemplates.delete(request.principal, await ownName(request.principal, request.params.templateId));
    return reply.code(204).send();
  });

  app.get('/templates/:templateId/builds', { schema: { params: TemplateParams } }, async (request) => {
    const { limit } = parsePage(request.query as RawQuery);
    const builds = await ownTemplates.builds(request.principal, await ownName(request.principal, request.params.templateId), Math.min(limit ?? defaultBuilds, mostBuilds));
    return builds.map(presentBuild);
  });

  app.post('/templates/:templateId/builds', { schema: { params: TemplateParams } }, async (request, reply) => {
    if (request.body !== undefined && request.body !== null && Object.keys(request.body as object).length > 0) throw badRequest('the body', 'must be empty: a rebuild has the spec of its template');
    const { build, begun } = await ownTemplates.rebuild(request.principal, await ownName(request.principal, request.params.templateId));
    return reply.code(begun ? 201 : 200).send(presentBuild(build));
  });

  app.get('/templates/:templateId/builds/:buildId', { schema: { params: BuildParams } }, async (request) => presentBuild(await buildOf(request.principal, request.params)));

  app.delete('/templates/:templateId/builds/:buildId', { schema: { params: BuildParams } }, async (request, reply) => {
    await ownTemplates.cancel(request.principal, readBuildId(request.params.buildId), await ownName(request.principal, request.params.templateId));
    return reply.code(204).send();
  });

  app.get('/templates/:templateId/builds/:buildId/logs', { schema: { params: BuildParams } }, async (request, reply) => {
    const build = await buildOf(request.principal, request.params);
    const signal = callerSignal(reply, stopping.draining);
    // One that is deleted with its template meanwhile ended as it was last seen.
    const now = () => ownTemplates.build(request.principal, build.id).catch(() => ({ ...build, status: 'cancelled' as const }));
    await sendEventStream(reply, logFrames(ownTemplates.follow(build, signal), now, signal));
  });

  async function buildOf(principal: Principal, { templateId, buildId }: { readonly templateId: string; readonly buildId: string }) {
    return ownTemplates.build(principal, readBuildId(buildId), await ownName(principal, templateId));
  }

  function findSystem(asked: string): Presented | undefined {
    return system().find(({ name }) => name === asked || templateUuid(String(name)) === asked);
  }

  /** As the contract has it, system templates are not found by what is only for own ones. */
  async function ownName(principal: Principal, asked: string): Promise<string> {
    if ((await ownTemplates.find(principal, readName(asked))) === null && findSystem(asked) !== undefined) throw new PaddockError('not_found', `the template ${asked} is a system template: it is neither built nor deleted through the API`);
    return asked;
  }
}

function readName(asked: string): string {
  if (asked === '') throw badRequest('template', 'needs a name or an id');
  return asked;
}

function readBuildId(text: string): BuildId {
  if (!isUuid(text)) throw badRequest('build id', `must be a lowercase UUID, but is "${text.slice(0, 80)}"`);
  return parseBuildId(text)!;
}

const sortKeys = { created_at: 'created_at', name: 'name', status: 'status', size: 'size_bytes', built_at: 'built_at' } as const;

function compare(a: unknown, b: unknown): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  const [one, other] = [String(a ?? ''), String(b ?? '')];
  return one < other ? -1 : one > other ? 1 : 0;
}
