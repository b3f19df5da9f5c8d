import type { SandboxId } from './ids.ts';

interface Reading {
  count: number;
  /** The newest entry that any reader was given. */
  lastEntry: number;
  /** Forget the process when its last reader has left. */
  removeAfter: boolean;
}

/** A process that falls out only loses its readers' place: the next one starts from the beginning. */
const mostPerSandbox = 512;

/** Who reads the output of which process, so that a process is not forgotten under a reader, and a later one starts where the others are. */
export class Readers {
  readonly #sandboxes = new Map<SandboxId, Map<string, Reading>>();

  enter(sandboxId: SandboxId, processId: string): void {
    this.#reading(sandboxId, processId).count += 1;
  }

  saw(sandboxId: SandboxId, processId: string, entry: number): void {
    const reading = this.#sandboxes.get(sandboxId)?.get(processId);
    if (reading !== undefined && entry > reading.lastEntry) reading.lastEntry = entry;
  }

  /** True for the last reader of a process that is to be forgotten. */
  leave(sandboxId: SandboxId, processId: string): boolean {
    const reading = this.#sandboxes.get(sandboxId)?.get(processId);
    // The sandbox may have ended under its reader.
    if (reading === undefined) return false;
    reading.count -= 1;
    return reading.count === 0 && reading.removeAfter;
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
    if (reading === undefined) {
      if (readings.size >= mostPerSandbox) dropOldestUnread(readings);
      readings.set(processId, (reading = { count: 0, lastEntry: 0, removeAfter: false }));
    }
    return reading;
  }
}

function dropOldestUnread(readings: Map<string, Reading>): void {
  for (const [processId, reading] of readings) {
    if (reading.count > 0) continue;
    readings.delete(processId);
    return;
  }
}
