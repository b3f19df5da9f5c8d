import type { CreateSandbox } from '../../core/create-input.ts';
import type { CreateFromSnapshot } from '../../core/forks.ts';
import type { Lap } from '../../core/host.ts';
import { PaddockError } from '../../core/errors.ts';
import type { TeamId } from '../../core/ids.ts';
import type { Declared, Lifecycle } from '../../core/sandbox.ts';
import { policyRequest } from './policy.ts';
import { secretsOf } from './vault-refs.ts';
import type { CreateBodyType } from './schemas/sandboxes.ts';

/** Seconds a sandbox lives when its create does not say. */
export const defaultTimeoutSeconds = 300;

/**
 * A create of this wire in the words of the core.
 *
 * @param teamId the caller's, whose secrets it may name.
 * @param body the checked body, without nulls.
 * @param received the body as it came, for the echo.
 * @param lap hears of the stages of the create.
 * @throws PaddockError naming the field that cannot be used.
 */
export function createInput(teamId: TeamId, body: CreateBodyType, received: Readonly<Record<string, unknown>>, lap: Lap): CreateSandbox {
  if (body.resources !== undefined) {
    throw new PaddockError('permission_denied', 'resources cannot be chosen for a sandbox: they come from its template.', { field: 'resources' });
  }
  return {
    wire: 'declaw',
    templateName: body.template ?? '',
    timeoutSeconds: body.timeout ?? defaultTimeoutSeconds,
    metadata: body.metadata ?? {},
    envs: body.envs ?? {},
    lifecycle: lifecycleOf(body.lifecycle),
    declared: declaredBy(received),
    policy: policyRequest(body),
    secrets: secretsOf(body.vault_refs ?? {}, teamId),
    defaultUser: 'user',
    lap,
  };
}

/**
 * A create from a snapshot. The clients name a template in every create, so that one says nothing here; what a snapshot holds
 * holds unless the request says otherwise.
 */
export function createFromInput(teamId: TeamId, body: CreateBodyType, received: Readonly<Record<string, unknown>>, lap: Lap): CreateFromSnapshot {
  if (body.volumes !== undefined && body.volumes.length > 0) {
    throw new PaddockError('invalid_argument', 'volumes cannot be given together with snapshot_id: the sandbox has the files of the snapshot.', { field: 'volumes' });
  }
  const { timeoutSeconds, metadata, envs, lifecycle, declared, policy, secrets } = createInput(teamId, body, received, lap);
  return {
    wire: 'declaw',
    metadata,
    envs,
    lap,
    ...(secrets === undefined ? {} : { secrets }),
    ...(body.timeout === undefined ? {} : { timeoutSeconds }),
    ...(body.lifecycle === undefined ? {} : { lifecycle }),
    ...(policy === undefined || (body.network === undefined && body.security === undefined) ? {} : { policy, declared }),
  };
}

/** The last two are not in the contract: what people who pause by themselves ask for next. */
export function lifecycleOf(lifecycle: CreateBodyType['lifecycle']): Lifecycle {
  return {
    onTimeout: lifecycle?.on_timeout ?? 'kill',
    autoResume: lifecycle?.auto_resume ?? false,
    maxLifetimeSeconds: lifecycle?.max_lifetime_seconds ?? null,
    autoDeleteSeconds: lifecycle?.auto_delete_seconds ?? null,
  };
}

function declaredBy(received: Readonly<Record<string, unknown>>): Declared {
  const declared: Record<string, unknown> = {};
  for (const key of ['network', 'security', 'lifecycle', 'volumes', 'secure'] as const) {
    if (received[key] !== undefined && received[key] !== null) declared[key] = received[key];
  }
  return declared;
}
