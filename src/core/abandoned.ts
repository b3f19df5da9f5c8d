import { PaddockError } from './errors.ts';

/** What a use case throws when its caller has left: the caller's own reason if it is one of ours. */
export function abandoned(caller: AbortSignal): PaddockError {
  if (caller.reason instanceof PaddockError) return caller.reason;
  return new PaddockError('conflict', 'the request was abandoned by its caller before it was done', {}, { cause: caller.reason });
}
