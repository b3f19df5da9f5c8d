import { PaddockError } from '../../core/errors.ts';

/** @throws PaddockError `invalid_argument` for what is not a process id. */
export function parsePid(text: string): number {
  const pid = /^\d{1,15}$/.test(text) ? Number(text) : null;
  if (pid === null) throw new PaddockError('invalid_argument', `pid must be a whole number, but is "${text.slice(0, 40)}".`, { field: 'pid' });
  return pid;
}
