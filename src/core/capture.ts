import type { Sandbox } from './sandbox.ts';
import type { Captured, ProcessRemainder } from './snapshot.ts';

/** A sandbox as its snapshot remembers it. */
export function capture(sandbox: Sandbox, processes: readonly ProcessRemainder[]): Captured {
  const { generation, wire, template, limits, defaultUser, envs, policy, declared, lifecycle, timeoutSeconds, authorityId } = sandbox;
  return Object.freeze({ generation, wire, template, limits, defaultUser, envs, policy, declared, lifecycle, timeoutSeconds, processes, authorityId });
}
