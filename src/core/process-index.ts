import type { Guest, ProcessInfo, ProcessKind, StartedProcess } from './host.ts';
import type { SandboxId } from './ids.ts';

export interface KnownProcess {
  readonly id: string;
  readonly pid: number;
  readonly kind: ProcessKind;
}

const mostPerSandbox = 512;

/**
 * Finds processes by their pid, as clients name them. Pids come again, so a pid means the newest process that has it. What
 * is not remembered here (after a restart, say) is asked from the guest.
 */
export class ProcessIndex {
  readonly #sandboxes = new Map<SandboxId, Map<number, KnownProcess>>();

  note(sandboxId: SandboxId, process: StartedProcess, kind: ProcessKind): void {
    let known = this.#sandboxes.get(sandboxId);
    if (known === undefined) this.#sandboxes.set(sandboxId, (known = new Map<number, KnownProcess>()));
    // Deleted first, so that the order of the map is the order of use.
    known.delete(process.pid);
    known.set(process.pid, { id: process.id, pid: process.pid, kind });
    if (known.size > mostPerSandbox) {
      const oldest = known.keys().next();
      if (oldest.done !== true) known.delete(oldest.value);
    }
  }

  /** Only if the pid still means this process. */
  forget(sandboxId: SandboxId, process: KnownProcess): void {
    const known = this.#sandboxes.get(sandboxId);
    if (known?.get(process.pid)?.id !== process.id) return;
    known.delete(process.pid);
    if (known.size === 0) this.#sandboxes.delete(sandboxId);
  }

  forgetAll(sandboxId: SandboxId): void {
    this.#sandboxes.delete(sandboxId);
  }

  async find(sandboxId: SandboxId, guest: Guest, pid: number, signal: AbortSignal): Promise<KnownProcess | null> {
    const known = this.#sandboxes.get(sandboxId)?.get(pid);
    if (known !== undefined) return known;
    let newest: ProcessInfo | null = null;
    for (const process of await guest.processes(signal)) {
      if (process.pid === pid && (newest === null || process.startedAt >= newest.startedAt)) newest = process;
    }
    if (newest === null) return null;
    this.note(sandboxId, newest, newest.kind);
    return { id: newest.id, pid, kind: newest.kind };
  }
}
