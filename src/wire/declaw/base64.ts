import { PaddockError } from '../../core/errors.ts';

/**
 * Standard base64 (RFC 4648, section 4), padding optional.
 *
 * @throws PaddockError `invalid_argument` naming the field; Node by itself would skip what it cannot read.
 */
export function decodeBase64(field: string, text: string): Buffer {
  const stripped = text.replace(/={1,2}$/, '');
  if (stripped.length % 4 === 1 || !/^[A-Za-z0-9+/]*$/.test(stripped)) {
    throw new PaddockError('invalid_argument', `${field} must be standard base64.`, { field });
  }
  return Buffer.from(stripped, 'base64');
}
