import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Access } from '../core/access.ts';
import { PaddockError } from '../core/errors.ts';
import type { Principal } from '../core/principal.ts';

/** Calls that change nothing, although they have a body. */
const readingPosts: ReadonlySet<string> = new Set(['/network/explain']);

/** Fields of answers that open something or hold what was given in confidence, which a key that may only read must not have. */
const openers: ReadonlySet<string> = new Set(['access_token', 'envd_access_token', 'traffic_access_token', 'sensitive_vars', 'policy_json']);
/** Environment variables: their names are shown, their values may be keys. */
const environments: ReadonlySet<string> = new Set(['envs', 'env', 'env_vars']);

/**
 * What is asked of every request with a key, once it is known whose: that the key may do this, and stays valid for as long as the answer takes.
 *
 * @throws PaddockError `permission_denied` naming the scope, `invalid_argument` for a key in the query.
 */
export function admitRequest(access: Pick<Access, 'follow'>, request: FastifyRequest, reply: FastifyReply): void {
  assertNoKeyInQuery(request.url);
  if (request.method !== 'GET' && request.method !== 'HEAD' && !readingPosts.has(request.routeOptions.url ?? '')) assertMayWrite(request.principal);
  reply.raw.once('close', access.follow(request.principal, () => reply.raw.destroy()));
}

export function assertMayWrite({ scope }: Principal): void {
  if (scope === 'read') throw new PaddockError('permission_denied', 'this API key may only read (scope read); use one with the scope write, which "paddock keys create NAME --scope write" makes', { reason: 'scope' });
}

/** It would stay in histories and in the logs of whatever is between. */
function assertNoKeyInQuery(url: string): void {
  if (/[?&][^=&]*=(dcl_|ss_live_)[A-Za-z0-9]{8}/.test(url)) {
    throw new PaddockError('invalid_argument', 'an API key was sent in the query, where logs and histories keep it: revoke it, and send a new one in a header', { field: 'query' });
  }
}

/** An answer as a key that may only read gets it. */
export function withheld(payload: unknown): unknown {
  if (Array.isArray(payload)) return payload.map(withheld);
  if (typeof payload !== 'object' || payload === null || Buffer.isBuffer(payload) || 'pipe' in payload) return payload;
  return Object.fromEntries(
    Object.entries(payload)
      .filter(([name]) => !openers.has(name))
      .map(([name, value]) => [name, environments.has(name) ? masked(value) : withheld(value)]),
  );
}

function masked(environment: unknown): unknown {
  if (typeof environment !== 'object' || environment === null) return environment;
  return Object.fromEntries(Object.keys(environment).map((name) => [name, '***']));
}
