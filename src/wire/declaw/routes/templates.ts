import { PaddockError } from '../../../core/errors.ts';
import type { Principal } from '../../../core/principal.ts';
import type { Limits, Template } from '../../../core/template.ts';
import { defaultSizes } from '../../../core/templates/spec.ts';
import { parseBuildId, publicTemplateId, type OwnTemplate, type TemplateBuild } from '../../../core/templates/template.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { withoutNulls } from '../nulls.ts';
import { BuildBody, BuildParams, TemplateParams } from '../schemas/templates.ts';
import { templateInput } from '../template-build.ts';

/** Lines of a log that a status shows: the newest (contract, section 2.11). */
const mostLines = 2000;
const truncationMarker = '... [earlier build output truncated]';

/** The templates that sandboxes can be made from, and those that teams build (contract, section 2.11). */
export function templateRoutes(app: Scope, deps: RouteDependencies): void {
  const { templates, ownTemplates, present } = deps;

  app.post(
    '/templates/build',
    {
      schema: { body: BuildBody },
      preValidation: async (request) => {
        request.body = withoutNulls(request.body) as typeof request.body;
      },
    },
    async (request, reply) => {
      const input = templateInput(request.body);
      const { vcpus, memoryMb, diskMb } = await usualSizes(request.principal, input.spec.from);
      const { build } = await ownTemplates.create(request.principal, { ...input, spec: { vcpus, memoryMb, diskMb, ...input.spec } });
      return reply.code(201).send(begun(build));
    },
  );

  app.get('/templates/builds/:buildId', { schema: { params: BuildParams } }, async (request) => {
    const build = await ownTemplates.build(request.principal, parseBuildId(request.params.buildId));
    const { lines, truncated } = await ownTemplates.lines(build, mostLines);
    const texts = lines.map(({ text }) => text);
    return { build_id: build.id, status: statusWord(build), template_id: publicTemplateId(build.templateId), logs: truncated ? [truncationMarker, ...texts.slice(1 - mostLines)] : texts, ...errorOf(build.errorMessage) };
  });

  app.post('/templates/:templateId/rebuild', { schema: { params: TemplateParams } }, async (request, reply) => {
    await assertOwn(request.principal, request.params.templateId);
    const { build } = await ownTemplates.rebuild(request.principal, request.params.templateId, { onlyFailed: true });
    return reply.code(201).send(begun(build));
  });

  app.get('/templates', async (request) => {
    const own = await ownTemplates.list(request.principal);
    return { templates: [...own.map((each) => presentOwn(each)), ...templates.list().map((each) => present.template(each))] };
  });

  app.get('/templates/:templateId', { schema: { params: TemplateParams } }, async (request) => find(request.principal, request.params.templateId));

  app.delete('/templates/:templateId', { schema: { params: TemplateParams } }, async (request) => {
    await assertOwn(request.principal, request.params.templateId);
    await ownTemplates.delete(request.principal, request.params.templateId);
    return {};
  });

  async function find(principal: Principal, asked: string): Promise<object> {
    const own = await ownTemplates.find(principal, asked);
    const system = own === null ? builtIn(asked) : undefined;
    return system === undefined ? presentOwn(own ?? (await ownTemplates.get(principal, asked))) : present.template(system);
  }

  /** What it begins with gives the sizes that a build leaves open, and `base` for an image. */
  async function usualSizes(principal: Principal, from: string): Promise<Pick<Limits, 'vcpus' | 'memoryMb' | 'diskMb'>> {
    const own = await ownTemplates.find(principal, from);
    return own?.spec ?? builtIn(from)?.limits ?? templates.find('base')?.limits ?? defaultSizes;
  }

  function builtIn(asked: string): Template | undefined {
    return templates.list().find((each) => each.id === asked || each.name === asked);
  }

  async function assertOwn(principal: Principal, asked: string): Promise<void> {
    if ((await ownTemplates.find(principal, asked)) === null && builtIn(asked) !== undefined) throw new PaddockError('permission_denied', `the template ${asked} is built in: it can be neither built nor deleted through the API`);
  }
}

function begun(build: TemplateBuild): object {
  return { build_id: build.id, status: 'building', template_id: publicTemplateId(build.templateId), logs: [] };
}

function statusWord({ status }: TemplateBuild): 'building' | 'completed' | 'failed' {
  return status === 'ready' ? 'completed' : status === 'failed' || status === 'cancelled' ? 'failed' : 'building';
}

/** The template object; what is behind `created_at` is not in the contract. */
function presentOwn({ id, name, createdAt, status, spec, errorMessage }: OwnTemplate): object {
  return {
    template_id: publicTemplateId(id),
    alias: name,
    created_at: `${new Date(createdAt).toISOString().slice(0, 19)}Z`,
    status: status === 'ready' ? 'completed' : status,
    cpu_count: spec.vcpus,
    memory_mb: spec.memoryMb,
    disk_mb: spec.diskMb,
    ...errorOf(errorMessage),
  };
}

/** Not in the contract; clients ignore it, people ask for it. */
function errorOf(message: string | null): object {
  return message === null ? {} : { error: message };
}
