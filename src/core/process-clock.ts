import type { SandboxId } from './ids.ts';
import type { Sandbox } from './sandbox.ts';
import type { ProcessRemainder } from './snapshot.ts';

/** Counts how long processes may run, for whoever stops and restarts the time of a sandbox. Deadlines of processes count active time only. */
export interface ProcessClock {
  remaining(id: SandboxId): readonly ProcessRemainder[];
  /** The sandbox stands still: nothing falls due until `restart`. */
  suspend(id: SandboxId): void;
  /** The sandbox is about to run with these processes; `same` when they are the ones it had. Durable when it resolves. */
  restart(sandbox: Sandbox, processes: readonly ProcessRemainder[], same: boolean): Promise<void>;
}

/** Where nobody counts. */
export const noProcessClock: ProcessClock = Object.freeze({ remaining: () => [], suspend: () => undefined, restart: async () => undefined });
