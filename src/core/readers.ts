import type { SandboxId } from './ids.ts';

interface Reading {
  count: number;
  /** The newest entry that any reader was given. */
  lastEntry: number;
  /** Forget the process when its last reader has left. */
  removeAfter: boolean;
}

/** Who reads the output of which process, so that a process is not forgotten under a reader, and a later one starts where the others are. */
export class Readers {
  readonly #sandboxes = new Map<SandboxId, Map<string, Reading>>();

  enter(sandboxId: SandboxId, processId: string): void {
    this.#reading(sandboxId, processId).count += 1;
  }

  saw(sandboxId: SandboxId, processId: string, entry: number): void {
    const reading = this.#reading(sandboxId, processId);
    if (entry > reading.lastEntry) reading.lastEntry = entry;
  }

  /** True for the last reader of a process that is to be forgotten. */
  leave(sandboxId: SandboxId, processId: string): boolean {
    const reading = this.#reading(sandboxId, processId);
    reading.count -= 1;
    return reading.count <= 0 && reading.removeAfter;
  }

  /** Where the newest reader of all was; 0 when nobody has read. */
  lastEntry(sandboxId: SandboxId, processId: string): number {
    return this.#sandboxes.get(sandboxId)?.get(processId)?.lastEntry ?? 0;
  }

  /** True when somebody reads it now; then the last of them is told by `leave` to forget it. */
  removeAfter(sandboxId: SandboxId, processId: string): boolean {
    const reading = this.#sandboxes.get(sandboxId)?.get(processId);
    if (reading === undefined || reading.count === 0) return false;
    reading.removeAfter = true;
    return true;
  }

  forget(sandboxId: SandboxId, processId: string): void {
    const readings = this.#sandboxes.get(sandboxId);
    readings?.delete(processId);
    if (readings?.size === 0) this.#sandboxes.delete(sandboxId);
  }

  forgetAll(sandboxId: SandboxId): void {
    this.#sandboxes.delete(sandboxId);
  }

  #reading(sandboxId: SandboxId, processId: string): Reading {
    let readings = this.#sandboxes.get(sandboxId);
    if (readings === undefined) this.#sandboxes.set(sandboxId, (readings = new Map<string, Reading>()));
    let reading = readings.get(processId);
    if (reading === undefined) readings.set(processId, (reading = { count: 0, lastEntry: 0, removeAfter: false }));
    return reading;
  }
}
