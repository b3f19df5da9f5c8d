import type { CreateSandbox } from '../../core/create-input.ts';
import type { Lap } from '../../core/host.ts';
import { PaddockError } from '../../core/errors.ts';
import type { Declared } from '../../core/sandbox.ts';
import { publicId } from './ids.ts';
import { policyRequest } from './policy.ts';
import type { CreateBodyType } from './schemas/sandboxes.ts';

/** Seconds a sandbox lives when its create does not say. */
export const defaultTimeoutSeconds = 300;

/**
 * A create of this wire in the words of the core.
 *
 * @param body the checked body, without nulls.
 * @param received the body as it came, for the echo.
 * @param lap hears of the stages of the create.
 * @throws PaddockError naming the field that cannot be used.
 */
export function createInput(body: CreateBodyType, received: Readonly<Record<string, unknown>>, lap: Lap): CreateSandbox {
  if (body.resources !== undefined) {
    throw new PaddockError('permission_denied', 'resources cannot be chosen for a sandbox: they come from its template.', { field: 'resources' });
  }
  return {
    wire: 'declaw',
    templateName: body.template ?? '',
    timeoutSeconds: body.timeout ?? defaultTimeoutSeconds,
    metadata: body.metadata ?? {},
    envs: body.envs ?? {},
    lifecycle: { onTimeout: body.lifecycle?.on_timeout ?? 'kill', autoResume: body.lifecycle?.auto_resume ?? false },
    declared: declaredBy(received),
    policy: policyRequest(body),
    defaultUser: 'user',
    wireEnv: (sandbox) => ({ DECLAW_SANDBOX: 'true', DECLAW_SANDBOX_ID: publicId(sandbox) }),
    hostname: publicId,
    lap,
  };
}

function declaredBy(received: Readonly<Record<string, unknown>>): Declared {
  const declared: Record<string, unknown> = {};
  for (const key of ['network', 'security', 'lifecycle', 'volumes', 'secure'] as const) {
    if (received[key] !== undefined && received[key] !== null) declared[key] = received[key];
  }
  return declared;
}
