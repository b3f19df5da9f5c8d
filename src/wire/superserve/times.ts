import { badRequest } from './errors.ts';

const rfc3339 = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;

/**
 * Milliseconds since the epoch.
 *
 * @param also what else the field may be, for the message.
 * @throws PaddockError `invalid_argument` for what is no time of RFC 3339.
 */
export function parseTime(field: string, text: string, also = ''): number {
  // A plus sign that was not encoded arrives as a space.
  const time = text.replace(/ (\d\d:\d\d)$/, '+$1');
  const at = rfc3339.test(time) ? Date.parse(time.replace(' ', 'T')) : Number.NaN;
  if (Number.isNaN(at)) throw badRequest(field, `must be ${also}a time of RFC 3339 such as 2026-01-15T10:30:00Z, but is "${text.slice(0, 40)}"`);
  return at;
}
