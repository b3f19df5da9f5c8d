import type { Clock } from './clock.ts';
import type { Deadlines } from './deadlines.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { StartedProcess } from './host.ts';
import type { SandboxId } from './ids.ts';
import type { Sandbox } from './sandbox.ts';
import type { Sandboxes } from './sandboxes.ts';
import type { ProcessDeadline, Store } from './store.ts';

const killWithinMs = 5000;
const retryAfterMs = 5000;

/** Deadlines of processes that outlive their request. They are stored, so that a restart of the server does not lose them. */
export class ProcessTimeouts {
  readonly #sandboxes: Sandboxes;
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #deadlines: Deadlines;
  readonly #events: EventLog;
  readonly #armed = new Map<SandboxId, Set<string>>();

  constructor(deps: { readonly sandboxes: Sandboxes; readonly store: Store; readonly clock: Clock; readonly deadlines: Deadlines; readonly events: EventLog }) {
    this.#sandboxes = deps.sandboxes;
    this.#store = deps.store;
    this.#clock = deps.clock;
    this.#deadlines = deps.deadlines;
    this.#events = deps.events;
  }

  /** Takes up the deadlines stored before a restart; those of sandboxes that ended meanwhile are dropped. */
  async start(running: readonly Sandbox[]): Promise<void> {
    const alive = new Map(running.map((sandbox) => [sandbox.id, sandbox]));
    const lost = new Set<SandboxId>();
    for (const deadline of await this.#store.processDeadlines.all()) {
      const sandbox = alive.get(deadline.sandboxId);
      if (sandbox === undefined) lost.add(deadline.sandboxId);
      else this.#arm(sandbox, deadline);
    }
    for (const id of lost) await this.#store.processDeadlines.removeAll(id);
  }

  async watch(sandbox: Sandbox, process: StartedProcess, seconds: number): Promise<void> {
    if (seconds === 0) return;
    const deadline: ProcessDeadline = { teamId: sandbox.teamId, sandboxId: sandbox.id, processId: process.id, at: this.#clock.now() + seconds * 1000 };
    await this.#store.processDeadlines.put(deadline);
    this.#arm(sandbox, deadline);
  }

  /** The process has ended, or has been forgotten. */
  async clear(sandboxId: SandboxId, processId: string): Promise<void> {
    const armed = this.#armed.get(sandboxId);
    if (armed?.delete(processId) !== true) return;
    if (armed.size === 0) this.#armed.delete(sandboxId);
    this.#deadlines.disarm(keyOf(sandboxId, processId));
    await this.#store.processDeadlines.remove(sandboxId, processId);
  }

  /** The sandbox has ended. */
  async clearAll(sandboxId: SandboxId): Promise<void> {
    const armed = this.#armed.get(sandboxId);
    if (armed === undefined) return;
    this.#armed.delete(sandboxId);
    for (const processId of armed) this.#deadlines.disarm(keyOf(sandboxId, processId));
    await this.#store.processDeadlines.removeAll(sandboxId);
  }

  #arm(sandbox: Sandbox, deadline: ProcessDeadline): void {
    const armed = this.#armed.get(sandbox.id) ?? new Set<string>();
    this.#armed.set(sandbox.id, armed.add(deadline.processId));
    this.#deadlines.arm(keyOf(sandbox.id, deadline.processId), deadline.at, () => void this.#expire(sandbox, deadline));
  }

  /** Kills the group but keeps the entry, so that whoever waits for it learns of the end. */
  async #expire(sandbox: Sandbox, deadline: ProcessDeadline): Promise<void> {
    try {
      const guest = this.#sandboxes.guestOf(sandbox.id);
      const killed = guest !== null && (await guest.sendSignal(deadline.processId, 'SIGKILL', AbortSignal.timeout(killWithinMs)));
      if (killed) this.#events.ofSandbox(sandbox, 'command', 'process_timed_out', { processId: deadline.processId });
      await this.clear(sandbox.id, deadline.processId);
    } catch (error) {
      const { code } = PaddockError.from(error);
      if (code === 'not_found' || code === 'gone') {
        await this.clear(sandbox.id, deadline.processId).catch(() => undefined);
        return;
      }
      const again = { ...deadline, at: this.#clock.now() + retryAfterMs };
      // Unless the sandbox has ended meanwhile.
      if (this.#armed.get(sandbox.id)?.has(deadline.processId) === true) this.#arm(sandbox, again);
    }
  }
}

function keyOf(sandboxId: SandboxId, processId: string): string {
  return `${sandboxId} ${processId}`;
}
