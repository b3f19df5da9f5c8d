import type { GuestDeath, GuestRef } from '../core/host.ts';
import type { CgroupStats } from './cgroup.ts';
import type { Slot } from './slots.ts';
import type { InstalledTemplate } from './templates.ts';

/** A guest as its runtime knows it: process, cgroup and the slot it lives in. No identity yet. */
export type RuntimeHandle = Pick<GuestRef, 'runtime' | 'build' | 'container' | 'pid' | 'pidStart' | 'bootId'>;

/**
 * What runs guests. A runtime knows processes, files and cgroups of the host; of agents, sandboxes and networks beyond a
 * namespace's name it knows nothing.
 */
export interface Runtime {
  readonly kind: GuestRef['runtime'];
  /** SHA-256 of the build that new guests are started with. */
  readonly build: string;
  /** Boots the template in the slot. Resolves when process 1 has been started; its agent may not listen yet. */
  start(slot: Slot, template: InstalledTemplate, signal: AbortSignal): Promise<RuntimeHandle>;
  /** Whether the guest's process still runs; cheap enough to ask several times a second. */
  isAlive(handle: RuntimeHandle): boolean;
  freeze(container: string): Promise<void>;
  thaw(container: string): void;
  stats(container: string): CgroupStats;
  /** Why a guest that is dead died. Must be asked before `destroy`, which removes the evidence. */
  autopsy(container: string, slot: Slot): Promise<GuestDeath>;
  /** Ends the guest and removes what the runtime made for it. Succeeds when there is nothing. */
  destroy(container: string): Promise<void>;
  /** Every guest of this instance of which anything is left on the machine, alive or not. */
  containers(): Promise<Set<string>>;
}
