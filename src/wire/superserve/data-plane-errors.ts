import { PaddockError } from '../../core/errors.ts';
import type { SandboxId } from '../../core/ids.ts';
import type { Sandboxes } from '../../core/sandboxes.ts';
import { SuperserveError } from './errors.ts';
import { statusOf, type Status } from './status.ts';

const retryAfterSeconds: Readonly<Partial<Record<Status, number>>> = { starting: 1, resuming: 1, pausing: 2 };

/**
 * What a failed call to the inside of a sandbox is told. The core says that the state is in the way or something is missing; whether that is
 * the sandbox, and what its user can do, is found out here, so only when something has failed.
 */
export async function explained(sandboxes: Pick<Sandboxes, 'ownerOf' | 'get'>, id: SandboxId, reason: unknown): Promise<unknown> {
  if (!(reason instanceof PaddockError) || !['conflict', 'not_found', 'gone'].includes(reason.code)) return reason;
  try {
    const sandbox = await sandboxes.get(await sandboxes.ownerOf(id), { id });
    const status = statusOf(sandbox);
    if (status === 'deleted') return stale(id);
    if (status === 'failed' || status === 'active') return reason;
    return unavailable(id, status);
  } catch (error) {
    return PaddockError.from(error).code === 'not_found' ? stale(id) : error;
  }
}

/** 503, on which clients activate the sandbox and try again. */
export function unavailable(id: SandboxId, status: Status): SuperserveError {
  const advice = `POST /sandboxes/${id}/activate with your X-API-Key makes it run, and answers with a new access token for the same request`;
  return new SuperserveError(503, 'sandbox_unavailable', `the sandbox is ${status}; ${advice}`, { headers: { 'retry-after': String(retryAfterSeconds[status] ?? 1) } });
}

export function stale(id: SandboxId | null): SuperserveError {
  return new SuperserveError(404, 'sandbox_route_stale', id === null ? 'there is no sandbox with this id: it must be a UUID' : `there is no sandbox ${id}; it may have been deleted`);
}
