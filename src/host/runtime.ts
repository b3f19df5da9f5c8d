import type { GuestDeath, GuestRef } from '../core/host.ts';
import type { Limits } from '../core/template.ts';
import type { CgroupStats } from './cgroup.ts';
import type { Slot } from './slots.ts';

/** A guest as its runtime knows it: process, cgroup and the slot it lives in. No identity yet. */
export type RuntimeHandle = Pick<GuestRef, 'runtime' | 'build' | 'container' | 'pid' | 'pidStart' | 'bootId'>;

/** What a guest was made from, by digest. A saved guest needs exactly these again. */
export interface Origin {
  readonly template: string;
  readonly agent: string;
  /** Whether volumes can be mounted in it. */
  readonly mountable: boolean;
}

/** The root file system that a guest is made of, and its size. */
export interface GuestRoot {
  /** Of the template; null for a root that is this one guest's, which cannot be saved. */
  readonly digest: string | null;
  readonly rootfs: string;
  readonly limits: Limits;
  /** Environment for every process. */
  readonly env: Readonly<Record<string, string>>;
  /** Whether what the guest writes goes into `rootfs` itself; otherwise to an overlay on the slot's disk, and `rootfs` stays as it is. */
  readonly direct?: boolean;
}

/** A saved guest and what it is to be made of again. */
export interface SavedGuest {
  /** Directory with what `save` wrote. */
  readonly dir: string;
  /** The runtime's build that wrote it. */
  readonly build: string;
  readonly agent: string;
  readonly template: GuestRoot;
  readonly limits: Limits;
  readonly mountable: boolean;
}

/** Unknown when the server ended, or lost patience, in the middle of a pause or a resume. */
export type PauseState = 'running' | 'paused' | 'unknown';

/**
 * What runs guests. A runtime knows processes, files and cgroups of the host; of agents, sandboxes and networks beyond a
 * namespace's name it knows nothing.
 */
export interface Runtime {
  readonly kind: GuestRef['runtime'];
  /** SHA-256 of the build that new guests are started with. */
  readonly build: string;
  /** Boots a guest in the slot. Resolves when process 1 has been started; its agent may not listen yet. */
  start(slot: Slot, root: GuestRoot, signal: AbortSignal): Promise<RuntimeHandle>;
  /** What the guest in this slot was made from; null when that is not known, or not for good. */
  origin(slot: Slot): Origin | null;
  /** Stops the guest's kernel between two instructions. Its processes notice nothing but the time that passes. */
  pause(handle: RuntimeHandle): Promise<void>;
  /** The counterpart of one `pause`; never to be called without. */
  resume(handle: RuntimeHandle): Promise<void>;
  /** Known over restarts of the server too. */
  pauseState(handle: RuntimeHandle): PauseState;
  /** For a guest of unknown state that proves to run: nobody has to resume it. */
  forgetPause(handle: RuntimeHandle): void;
  /** Writes a paused guest into an empty directory. Whatever comes of it, the guest stays as it is: paused and whole, unless it dies. */
  save(handle: RuntimeHandle, dir: string, limits: { readonly signal: AbortSignal; readonly deadlineMs: number }): Promise<void>;
  /** Throws `unprocessable`, with its name, when something is not on this machine that a guest saved by this build with this agent needs. */
  assertRestorable(saved: Pick<SavedGuest, 'build' | 'agent'>): void;
  /** Makes a guest in the slot go on from where it was saved. Resolves when its processes run. */
  restore(slot: Slot, saved: SavedGuest, signal: AbortSignal): Promise<RuntimeHandle>;
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
