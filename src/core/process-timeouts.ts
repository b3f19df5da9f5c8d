import type { Clock } from './clock.ts';
import type { Deadlines } from './deadlines.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { StartedProcess } from './host.ts';
import type { SandboxId } from './ids.ts';
import type { ProcessClock } from './process-clock.ts';
import type { Sandbox } from './sandbox.ts';
import type { Sandboxes } from './sandboxes.ts';
import type { ProcessRemainder } from './snapshot.ts';
import type { ProcessDeadline, Store } from './store.ts';

const killWithinMs = 5000;
const retryAfterMs = 5000;

interface Armed {
  readonly at: number;
  /** A foreground command's deadline is its request's to keep; here it is only known. */
  readonly armed: boolean;
}

/**
 * Deadlines of processes. Those of processes that outlive their request are stored, so that a restart of the server does not lose them. They
 * count the time in which the sandbox runs: while it is paused nothing falls due, and what was left goes on afterwards.
 */
export class ProcessTimeouts implements ProcessClock {
  readonly #sandboxes: Sandboxes;
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #deadlines: Deadlines;
  readonly #events: EventLog;
  readonly #armed = new Map<SandboxId, Map<string, Armed>>();

  constructor(deps: { readonly sandboxes: Sandboxes; readonly store: Store; readonly clock: Clock; readonly deadlines: Deadlines; readonly events: EventLog }) {
    this.#sandboxes = deps.sandboxes;
    this.#store = deps.store;
    this.#clock = deps.clock;
    this.#deadlines = deps.deadlines;
    this.#events = deps.events;
  }

  /** Takes up the deadlines stored before a restart; those of sandboxes that ended meanwhile are dropped. */
  async start(living: readonly Sandbox[]): Promise<void> {
    const alive = new Map(living.map((sandbox) => [sandbox.id, sandbox]));
    const lost = new Set<SandboxId>();
    for (const deadline of await this.#store.processDeadlines.all()) {
      const sandbox = alive.get(deadline.sandboxId);
      if (sandbox === undefined) lost.add(deadline.sandboxId);
      // One that is paused says itself what its processes have left.
      else if (sandbox.state === 'running') this.#arm(sandbox, deadline);
    }
    for (const id of lost) await this.#store.processDeadlines.removeAll(id);
  }

  /** Makes the deadline of a foreground command known for as long as its request counts it. */
  note(sandboxId: SandboxId, processId: string, at: number): Disposable {
    this.#of(sandboxId).set(processId, { at, armed: false });
    return {
      [Symbol.dispose]: () => {
        const known = this.#armed.get(sandboxId);
        if (known?.get(processId)?.armed !== false) return;
        known.delete(processId);
        if (known.size === 0) this.#armed.delete(sandboxId);
      },
    };
  }

  remaining(id: SandboxId): readonly ProcessRemainder[] {
    const now = this.#clock.now();
    return [...(this.#armed.get(id) ?? [])].map(([processId, { at }]) => ({ processId, remainingMs: Math.max(0, at - now) }));
  }

  suspend(id: SandboxId): void {
    for (const processId of this.#armed.get(id)?.keys() ?? []) this.#deadlines.disarm(keyOf(id, processId));
    this.#armed.delete(id);
  }

  async restart(sandbox: Sandbox, processes: readonly ProcessRemainder[]): Promise<void> {
    const now = this.#clock.now();
    this.suspend(sandbox.id);
    const deadlines = processes.map(({ processId, remainingMs }) => ({ teamId: sandbox.teamId, sandboxId: sandbox.id, processId, at: now + remainingMs }));
    await this.#store.processDeadlines.replaceAll(sandbox.id, deadlines);
    for (const deadline of deadlines) this.#arm(sandbox, deadline);
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
    if (armed?.get(processId)?.armed !== true) return;
    armed.delete(processId);
    if (armed.size === 0) this.#armed.delete(sandboxId);
    this.#deadlines.disarm(keyOf(sandboxId, processId));
    await this.#store.processDeadlines.remove(sandboxId, processId);
  }

  /** The sandbox has ended. */
  async clearAll(sandboxId: SandboxId): Promise<void> {
    this.suspend(sandboxId);
    await this.#store.processDeadlines.removeAll(sandboxId);
  }

  #arm(sandbox: Sandbox, deadline: ProcessDeadline): void {
    this.#of(sandbox.id).set(deadline.processId, { at: deadline.at, armed: true });
    this.#deadlines.arm(keyOf(sandbox.id, deadline.processId), deadline.at, () => void this.#expire(sandbox, deadline));
  }

  #of(sandboxId: SandboxId): Map<string, Armed> {
    let armed = this.#armed.get(sandboxId);
    if (armed === undefined) this.#armed.set(sandboxId, (armed = new Map()));
    return armed;
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
