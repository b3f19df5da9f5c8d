import type { IncomingHttpHeaders } from 'node:http';
import type { Access } from '../../core/access.ts';
import { PaddockError } from '../../core/errors.ts';
import type { Principal } from '../../core/principal.ts';

/** Headers that may carry the API key (contract, section 1.4). Never the query: that ends up in logs and histories. */
export const keyHeaders = ['x-api-key', 'authorization'] as const;

/**
 * Who sends these headers. Both may be there, for example when a client of a program behind the port proxy sends an
 * `Authorization` of that program: one valid key is enough.
 *
 * @throws PaddockError `unauthenticated` with the text that the clients know.
 */
export async function authenticate(access: Pick<Access, 'authenticate'>, headers: IncomingHttpHeaders): Promise<Principal> {
  const apiKey = headers['x-api-key'];
  const bearer = /^bearer +(\S+)$/i.exec(headers.authorization ?? '')?.[1];
  for (const key of [typeof apiKey === 'string' ? apiKey.trim() : undefined, bearer]) {
    if (!key) continue;
    try {
      return await access.authenticate(key);
    } catch (error) {
      if (PaddockError.from(error).code !== 'unauthenticated') throw error;
    }
  }
  throw new PaddockError('unauthenticated', 'unauthorized: missing or invalid API key');
}
