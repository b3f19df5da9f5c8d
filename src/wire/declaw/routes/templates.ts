import { Type } from 'typebox';
import { PaddockError } from '../../../core/errors.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';

/** The templates that sandboxes can be made from (contract, section 2.11); building them comes later. */
export function templateRoutes(app: Scope, deps: RouteDependencies): void {
  const { templates, present } = deps;

  app.get('/templates', async () => ({ templates: templates.list().map((each) => present.template(each)) }));

  app.get('/templates/:templateId', { schema: { params: Type.Object({ templateId: Type.String() }) } }, async (request) => {
    const { templateId } = request.params;
    const found = templates.list().find((each) => each.id === templateId || each.name === templateId);
    if (found === undefined) throw new PaddockError('not_found', `Template ${templateId} not found`);
    return present.template(found);
  });
}
