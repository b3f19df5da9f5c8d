import type { Births } from './births.ts';
import type { Clock } from './clock.ts';
import type { Deadlines } from './deadlines.ts';
import { endOf } from './ended.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { GuestDeath, Host } from './host.ts';
import type { SandboxId } from './ids.ts';
import type { EndReason, Sandbox, SandboxEnd } from './sandbox.ts';
import { guestStates, statesBefore } from './state.ts';
import type { Store } from './store.ts';

const retryAfterMs = 5000;

/**
 * Every way a sandbox ends: asked for, by its deadline, by its own death, or left half-done by a crash. An end is claimed
 * by compare-and-set, so one of several callers carries it out and the others wait for the same teardown.
 */
export class Endings {
  readonly #store: Store;
  readonly #host: Host;
  readonly #clock: Clock;
  readonly #events: EventLog;
  readonly #deadlines: Deadlines;
  readonly #births: Births;
  readonly #teardowns = new Map<SandboxId, Promise<void>>();
  readonly #destroying = new Map<SandboxId, Promise<void>>();
  readonly #waiting = new Map<SandboxId, Set<() => void>>();
  readonly #expendable = new Set<SandboxId>();
  #released: (id: SandboxId) => Promise<void> = async () => undefined;
  readonly #listeners: ((id: SandboxId, sandbox: Sandbox) => void)[] = [];

  constructor(deps: {
    readonly store: Store;
    readonly host: Host;
    readonly clock: Clock;
    readonly events: EventLog;
    readonly deadlines: Deadlines;
    readonly births: Births;
  }) {
    this.#store = deps.store;
    this.#host = deps.host;
    this.#clock = deps.clock;
    this.#events = deps.events;
    this.#deadlines = deps.deadlines;
    this.#births = deps.births;
  }

  /** Says how to wait for a guest that is being let go. */
  releasedBy(released: (id: SandboxId) => Promise<void>): void {
    this.#released = released;
  }

  /** Called once per sandbox, when its guest is gone and the row says so. */
  onEnd(listener: (id: SandboxId, sandbox: Sandbox) => void): void {
    this.#listeners.push(listener);
  }

  /** Decides the end, durably; false when somebody else has. The teardown follows with `finish`. */
  async claim(id: SandboxId, reason: EndReason, detail = ''): Promise<boolean> {
    const end = endOf(this.#clock.now(), reason, detail);
    const claimed = await this.#store.sandboxes.transition(id, statesBefore('killing'), 'killing', { end });
    if (claimed === null) return false;
    this.claimed(claimed);
    return true;
  }

  /** An end has been decided by a transition of somebody else's. */
  claimed(sandbox: Sandbox): void {
    const reason = sandbox.end?.reason ?? 'killed';
    this.#births.fail(sandbox.id, new PaddockError('conflict', 'the sandbox was killed while it was being started', { reason }));
  }

  /** Takes down a sandbox that is `killing`; shared by all who call it meanwhile. */
  finish(sandbox: Sandbox): Promise<void> {
    const id = sandbox.id;
    let teardown = this.#teardowns.get(id);
    if (teardown === undefined) {
      teardown = this.#tearDown(sandbox).finally(() => this.#teardowns.delete(id));
      this.#teardowns.set(id, teardown);
    }
    return teardown;
  }

  /** `finish` with nobody waiting for it. */
  finishInBackground(sandbox: Sandbox): void {
    // Its failure is recorded and tried again by `#tearDown`.
    this.finish(sandbox).catch(() => undefined);
  }

  /** The host is asked once at a time, by a kill and by a create that is undone alike. */
  destroyGuest(id: SandboxId): Promise<void> {
    let destroying = this.#destroying.get(id);
    if (destroying === undefined) {
      destroying = this.#host.destroy(id).finally(() => this.#destroying.delete(id));
      this.#destroying.set(id, destroying);
    }
    return destroying;
  }

  /** How a sandbox ended, waiting a little for one whose death is just being recorded; null when it has not. */
  async awaitEnd(sandbox: Sandbox, withinMs: number): Promise<SandboxEnd | null> {
    const { promise: told, resolve } = Promise.withResolvers<void>();
    const waiting = this.#waiting.get(sandbox.id) ?? new Set();
    this.#waiting.set(sandbox.id, waiting.add(resolve));
    const timer = setTimeout(resolve, withinMs);
    try {
      const now = await this.#store.sandboxes.find(sandbox.teamId, { id: sandbox.id });
      if (now === null || now.end !== null) return now?.end ?? null;
      await told;
      return (await this.#store.sandboxes.find(sandbox.teamId, { id: sandbox.id }))?.end ?? null;
    } finally {
      clearTimeout(timer);
      waiting.delete(resolve);
      if (waiting.size === 0) this.#waiting.delete(sandbox.id);
    }
  }

  /** While its state is safe elsewhere, a guest may die unnoticed. */
  ignoreDeath(id: SandboxId, ignored: boolean): void {
    if (ignored) this.#expendable.add(id);
    else this.#expendable.delete(id);
  }

  /** A guest died without being asked to. */
  died(id: SandboxId, death: GuestDeath): void {
    if (this.#expendable.has(id)) return;
    if (this.#births.fail(id, new PaddockError('internal', `the sandbox ended while it was being started: ${death.detail}`, { reason: death.reason }))) return;
    void this.#bury(id, death, this.#clock.now());
  }

  async #bury(id: SandboxId, death: GuestDeath, at: number): Promise<void> {
    try {
      const buried = await this.#store.sandboxes.transition(id, guestStates, 'killed', { end: endOf(at, death.reason, death.detail), guest: null, snapshotId: null });
      // None when it is being killed: that teardown says the end.
      if (buried !== null) this.#ended(buried);
    } catch {
      this.#deadlines.arm(`bury ${id}`, at + retryAfterMs, () => void this.#bury(id, death, at));
    }
  }

  /** For sandboxes that were found dead at start. */
  async bury(sandbox: Sandbox, death: GuestDeath): Promise<void> {
    await this.#bury(sandbox.id, death, this.#clock.now());
  }

  /** Resolves when the teardowns under way are over, well or not. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#teardowns.values());
  }

  async #tearDown(sandbox: Sandbox): Promise<void> {
    const { id } = sandbox;
    this.#deadlines.disarm(id);
    // The host cannot take away a guest that it is still making, or letting go.
    await this.#births.abandoned(id);
    await this.#released(id);
    try {
      await this.destroyGuest(id);
      const killed = await this.#store.sandboxes.transition(id, ['killing'], 'killed', { guest: null, snapshotId: null, autoDeleteAt: null });
      if (killed !== null) this.#ended(killed);
    } catch (cause) {
      const error = PaddockError.from(cause);
      this.#events.ofSandbox(sandbox, 'lifecycle', 'end_failed', { message: error.message });
      this.#deadlines.arm(`teardown ${id}`, this.#clock.now() + retryAfterMs, () => this.finishInBackground(sandbox));
      throw new PaddockError('internal', `the sandbox could not be taken down yet, and is being tried again: ${error.message}`, {}, { cause });
    }
  }

  #ended(sandbox: Sandbox): void {
    this.#deadlines.disarm(sandbox.id);
    this.#deadlines.disarm(`teardown ${sandbox.id}`);
    this.#events.ofSandbox(sandbox, 'lifecycle', 'ended', { reason: sandbox.end?.reason ?? null, detail: sandbox.end?.detail ?? '' });
    for (const told of this.#waiting.get(sandbox.id) ?? []) told();
    for (const listener of this.#listeners) listener(sandbox.id, sandbox);
  }
}
