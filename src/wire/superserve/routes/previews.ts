import { Type } from 'typebox';
import type { PreviewPort } from '../../../core/store.ts';
import { bodyReader, optional, strict } from '../body.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { badRequest } from '../errors.ts';
import { parseId } from '../ids.ts';
import { assertRange } from '../limits.ts';
import { previewHeader, previewParameter } from '../preview-entrance.ts';
import { timestamp } from '../present.ts';
import { SandboxParams } from './sandboxes.ts';

export const PublishBody = strict({ port: optional(Type.Integer()), access: optional(Type.String()) });
export const TokenBody = strict({ expires_in_seconds: optional(Type.Integer()) });
const readPublish = bodyReader(PublishBody);
const readToken = bodyReader(TokenBody);
const readNothing = bodyReader(strict({}));

const PortParams = Type.Object({ id: Type.String(), port: Type.String() });

/** Published ports and the tokens of private ones (contract, section 12). */
export function previewRoutes(app: Scope, { previews, previewTokens }: RouteDependencies): void {
  app.get('/sandboxes/:id/preview-ports', { schema: { params: SandboxParams } }, async (request) => {
    const { access, ports } = await previews.list(request.principal, parseId(request.params.id));
    return { preview_access: access, ports: ports.map(present) };
  });

  app.post('/sandboxes/:id/preview-ports', { schema: { params: SandboxParams } }, async (request) => {
    const { port, access } = readPublish(request.body);
    if (port === undefined) throw badRequest('port', 'is required');
    if (access !== undefined && access !== 'public' && access !== 'private') throw badRequest('access', `must be public or private, but is "${access.slice(0, 40)}"`);
    return present(await previews.publish(request.principal, parseId(request.params.id), port, access ?? null));
  });

  app.delete('/sandboxes/:id/preview-ports/:port', { schema: { params: PortParams } }, async (request, reply) => {
    await previews.unpublish(request.principal, parseId(request.params.id), parsePort(request.params.port));
    return reply.code(204).send();
  });

  app.post('/sandboxes/:id/preview-ports/:port/token', { schema: { params: PortParams } }, async (request, reply) => {
    const { expires_in_seconds: seconds } = readToken(request.body);
    if (seconds !== undefined) assertRange('expires_in_seconds', seconds, 1, 604_800);
    const { sandbox, port } = await previews.private(request.principal, parseId(request.params.id), parsePort(request.params.port));
    const { token, expiresAt } = previewTokens.issue({ id: sandbox.id, port: port.port, tokenVersion: port.tokenVersion }, seconds ?? null);
    return reply.header('cache-control', 'no-store').send({
      token,
      port: port.port,
      header: headerName,
      query_param: previewParameter,
      access: 'private',
      preview_access: sandbox.policy.previews,
      token_version: port.tokenVersion,
      ...(expiresAt === null ? {} : { expires_at: timestamp(expiresAt) }),
    });
  });

  app.post('/sandboxes/:id/preview-ports/:port/token/rotate', { schema: { params: PortParams } }, async (request, reply) => {
    readNothing(request.body);
    const { port } = await previews.private(request.principal, parseId(request.params.id), parsePort(request.params.port), true);
    return reply.header('cache-control', 'no-store').send(present(port));
  });
}

/** As the contract spells it. */
const headerName = previewHeader.replaceAll(/\b[a-z]/g, (letter) => letter.toUpperCase());

function present({ port, access, tokenVersion }: PreviewPort): object {
  return { port, access, token_version: tokenVersion };
}

function parsePort(text: string): number {
  if (!/^\d{1,5}$/.test(text)) throw badRequest('port', `must be a number, but is "${text.slice(0, 40)}"`);
  return Number(text);
}
