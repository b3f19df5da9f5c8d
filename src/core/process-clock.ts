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

/** Passes on to whoever counts, who comes after those who ask; until then nobody does. */
export class ProcessClockSlot implements ProcessClock {
  #clock: ProcessClock | null = null;

  fill(clock: ProcessClock): void {
    this.#clock = clock;
  }

  remaining(id: SandboxId): readonly ProcessRemainder[] {
    return this.#clock?.remaining(id) ?? [];
  }

  suspend(id: SandboxId): void {
    this.#clock?.suspend(id);
  }

  async restart(sandbox: Sandbox, processes: readonly ProcessRemainder[], same: boolean): Promise<void> {
    await this.#clock?.restart(sandbox, processes, same);
  }
}
