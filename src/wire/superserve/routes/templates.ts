import { PaddockError } from '../../../core/errors.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { badRequest } from '../errors.ts';
import { isUuid, templateUuid } from '../ids.ts';
import { choice, parsePage, single, type RawQuery } from '../list-query.ts';
import { presentTemplate } from '../present.ts';
import { Type } from 'typebox';

type Presented = ReturnType<typeof presentTemplate>;

const TemplateParams = Type.Object({ templateId: Type.String() });

/** The templates that sandboxes can be made from (contract, section 7.2). */
export function templateRoutes(app: Scope, { templates }: RouteDependencies): void {
  const all = (): Presented[] => [
    ...templates.list().map((each) => presentTemplate(each, 'ready')),
    ...(templates.pending?.() ?? []).map((name) => presentTemplate({ name }, 'building')),
    ...(templates.offered?.() ?? []).map((name) => presentTemplate({ name }, 'pending')),
  ];

  app.get('/templates', async (request, reply) => {
    const raw = request.query as RawQuery;
    const prefix = single(raw, 'name_prefix') ?? '';
    const text = (single(raw, 'q') ?? '').toLowerCase();
    // There are only system templates yet.
    const own = choice(raw, 'owner', ['all', 'team', 'system'] as const, 'all') === 'team';
    const key = sortKeys[choice(raw, 'sort', ['created_at', 'name', 'status', 'size', 'built_at'] as const, 'created_at')];
    const sign = choice(raw, 'order', ['desc', 'asc'] as const, 'desc') === 'desc' ? -1 : 1;
    const { limit, offset } = parsePage(raw);
    const found = own ? [] : all().filter(({ name }) => String(name).startsWith(prefix) && String(name).toLowerCase().includes(text));
    found.sort((a, b) => sign * compare(a[key], b[key]));
    return reply.header('x-total-count', found.length).send(found.slice(offset, limit === null ? undefined : offset + limit));
  });

  app.get('/templates/:templateId', { schema: { params: TemplateParams } }, async (request) => find(request.params.templateId));

  app.delete('/templates/:templateId', { schema: { params: TemplateParams } }, async (request) => {
    const { name } = find(request.params.templateId);
    // As the contract has it for system templates, and there are no others yet.
    throw new PaddockError('not_found', `the template ${String(name)} is a system template and cannot be deleted`);
  });

  /** By name or by id. */
  function find(asked: string): Presented {
    const found = all().find(({ name }) => name === asked || templateUuid(String(name)) === asked);
    if (found !== undefined) return found;
    if (asked === '') throw badRequest('template', 'needs a name or an id');
    throw new PaddockError('not_found', `there is no template ${isUuid(asked) ? 'with the id ' : ''}${asked.slice(0, 128)}`);
  }
}

const sortKeys = { created_at: 'created_at', name: 'name', status: 'status', size: 'size_bytes', built_at: 'built_at' } as const;

function compare(a: unknown, b: unknown): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  const [one, other] = [String(a ?? ''), String(b ?? '')];
  return one < other ? -1 : one > other ? 1 : 0;
}
