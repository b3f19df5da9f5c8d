import type { Clock } from './clock.ts';
import type { Deadlines } from './deadlines.ts';
import { endOf } from './ended.ts';
import type { Endings } from './endings.ts';
import type { SandboxId } from './ids.ts';
import type { EndReason, PauseCause, Sandbox } from './sandbox.ts';
import { statesBefore } from './state.ts';
import type { SandboxGuard, Store } from './store.ts';

const retryAfterMs = 5000;
/** A pause that failed at a deadline is tried again: nobody's state is given up because a disk is full. */
const pauseAgainAfterMs = 30_000;

export interface Due {
  readonly at: number;
  readonly what: 'pause' | 'kill';
  readonly reason: EndReason;
  readonly detail: string;
}

/** What a sandbox's deadlines bring next, whichever comes first; null when nothing will. */
export function nextDue(sandbox: Sandbox): Due | null {
  const { state, lifecycle, endAt, autoDeleteAt, createdAt } = sandbox;
  const due: Due[] = [];
  if (lifecycle.maxLifetimeSeconds !== null) {
    due.push({ at: createdAt + lifecycle.maxLifetimeSeconds * 1000, what: 'kill', reason: 'timeout', detail: `It may live ${lifecycle.maxLifetimeSeconds} s from its creation, in whatever state.` });
  }
  if (state === 'running' && endAt !== null) due.push({ at: endAt, what: lifecycle.onTimeout, reason: 'timeout', detail: '' });
  if (state === 'paused' && autoDeleteAt !== null) {
    due.push({ at: autoDeleteAt, what: 'kill', reason: 'auto_deleted', detail: `It may be paused for ${lifecycle.autoDeleteSeconds} s.` });
  }
  return due.sort((a, b) => a.at - b.at)[0] ?? null;
}

/** Carries out what falls due, within a second of its time. */
export class Expiry {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #deadlines: Deadlines;
  readonly #endings: Endings;
  #pause: (sandbox: Sandbox, cause: PauseCause, guard: SandboxGuard) => Promise<unknown> = async () => undefined;

  constructor(deps: { readonly store: Store; readonly clock: Clock; readonly deadlines: Deadlines; readonly endings: Endings }) {
    this.#store = deps.store;
    this.#clock = deps.clock;
    this.#deadlines = deps.deadlines;
    this.#endings = deps.endings;
  }

  /** Says how to pause; before that, nothing must fall due. */
  pauseBy(pause: (sandbox: Sandbox, cause: PauseCause, guard: SandboxGuard) => Promise<unknown>): void {
    this.#pause = pause;
  }

  /** Arms the next deadline of a sandbox as its row is now, or disarms it when there is none. */
  watch(sandbox: Sandbox): void {
    const due = nextDue(sandbox);
    if (due === null) this.#deadlines.disarm(sandbox.id);
    else this.#deadlines.arm(sandbox.id, due.at, () => void this.#expire(sandbox.id));
  }

  async #expire(id: SandboxId): Promise<void> {
    try {
      const sandbox = await this.#store.sandboxes.find(null, { id });
      if (sandbox === null || sandbox.state === 'killing' || sandbox.state === 'killed') return;
      const due = nextDue(sandbox);
      if (due === null || due.at > this.#clock.now()) return this.watch(sandbox);
      // What was read is part of the comparison: a deadline that was moved meanwhile does nothing.
      const guard: SandboxGuard = { endAt: sandbox.endAt, autoDeleteAt: sandbox.autoDeleteAt, lifecycle: sandbox.lifecycle };
      if (due.what === 'pause') return await this.#pauseNow(sandbox, guard);
      const claimed = await this.#store.sandboxes.transition(id, statesBefore('killing').filter((state) => state === sandbox.state), 'killing', { end: endOf(due.at, due.reason, due.detail) }, guard);
      if (claimed !== null) {
        this.#endings.claimed(claimed);
        return await this.#endings.finish(claimed);
      }
      const now = await this.#store.sandboxes.find(null, { id });
      if (now !== null) this.watch(now);
    } catch {
      this.#deadlines.arm(id, this.#clock.now() + retryAfterMs, () => void this.#expire(id));
    }
  }

  async #pauseNow(sandbox: Sandbox, guard: SandboxGuard): Promise<void> {
    try {
      await this.#pause(sandbox, 'timeout', guard);
    } catch {
      // Reported where it failed. It may have been paused, moved or ended by somebody else.
      const now = await this.#store.sandboxes.find(null, { id: sandbox.id });
      if (now === null) return;
      const due = nextDue(now);
      const again = this.#clock.now() + pauseAgainAfterMs;
      if (due?.what === 'pause' && due.at < again) this.#deadlines.arm(sandbox.id, again, () => void this.#expire(sandbox.id));
      else this.watch(now);
    }
  }
}
