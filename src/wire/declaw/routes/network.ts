import { PaddockError } from '../../../core/errors.ts';
import { explain } from '../../../core/network/target.ts';
import { outboundRules } from '../../../core/policy.ts';
import type { Declared } from '../../../core/sandbox.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { parsePublicId } from '../ids.ts';
import { connectionQuery, presentExplanation, presentHappening, presentPage } from '../network-log.ts';
import { withoutNulls } from '../nulls.ts';
import { networkRequest } from '../policy.ts';
import { SandboxParams } from '../schemas/common.ts';
import { AuditQuery, ExplainBody, ExplainQuery, NetworkLogQuery, ReplaceBody } from '../schemas/network.ts';

const defaultAuditLimit = 100;

/** What a sandbox may reach and did reach. All of it is an extension: no client of this wire calls it (contract, sections 2.7 and 2.10). */
export function networkRoutes(app: Scope, deps: RouteDependencies): void {
  const { networks } = deps;

  app.get('/sandboxes/:id/network', { schema: { params: SandboxParams, querystring: NetworkLogQuery } }, async (request) =>
    presentPage(await networks.connections(request.principal, parsePublicId(request.params.id), connectionQuery(request.query))),
  );

  app.put(
    '/sandboxes/:id/network',
    {
      schema: { params: SandboxParams, body: ReplaceBody },
      preValidation: async (request) => {
        request.body = withoutNulls(request.body) as typeof request.body;
      },
    },
    async (request) => {
      const ref = parsePublicId(request.params.id);
      refuseOthers(request.body);
      const network = outboundRules('network', networkRequest(request.body));
      const { allow_out = [], deny_out = [] } = request.body;
      const declare = (before: Declared): Declared => ({ ...before, network: { ...(before.network as object | undefined), allow_out, deny_out } });
      const { declared } = await networks.replace(request.principal, ref, { network, declare });
      return { network: declared.network };
    },
  );

  app.get('/sandboxes/:id/network/explain', { schema: { params: SandboxParams, querystring: ExplainQuery } }, async (request) => {
    const { target } = request.query;
    return presentExplanation(target, await networks.explain(request.principal, parsePublicId(request.params.id), target));
  });

  app.post('/network/explain', { schema: { body: ExplainBody } }, async (request) => {
    const { network = {}, target } = request.body;
    return presentExplanation(target, explain(outboundRules('network', networkRequest(network)), target));
  });

  app.get('/sandboxes/:id/audit', { schema: { params: SandboxParams, querystring: AuditQuery } }, async (request) => {
    const happened = await networks.audit(request.principal, parsePublicId(request.params.id), request.query.limit ?? defaultAuditLimit);
    return { entries: happened.map(presentHappening) };
  });
}

/** Fields of a create's `network` that hold for life: better refused than taken for changed. */
function refuseOthers(body: object): void {
  for (const field of ['allow_public_traffic', 'mask_request_host']) {
    if (field in body) throw new PaddockError('invalid_argument', `${field} cannot be changed after a sandbox was created; leave it out.`, { field });
  }
}
