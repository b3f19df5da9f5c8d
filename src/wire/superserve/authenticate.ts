import type { IncomingHttpHeaders } from 'node:http';
import type { Access } from '../../core/access.ts';
import { PaddockError } from '../../core/errors.ts';
import type { Principal } from '../../core/principal.ts';

/** Who sends these headers. @throws PaddockError `unauthenticated`, whatever is wrong with the key. */
export async function authenticate(access: Pick<Access, 'authenticate'>, headers: IncomingHttpHeaders): Promise<Principal> {
  const key = headers['x-api-key'];
  if (typeof key !== 'string' || key.trim() === '') throw new PaddockError('unauthenticated', 'missing API key: send it in X-API-Key');
  try {
    return await access.authenticate(key.trim());
  } catch (error) {
    throw PaddockError.from(error).code === 'unauthenticated' ? new PaddockError('unauthenticated', 'invalid API key') : error;
  }
}
