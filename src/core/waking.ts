import type { Clock } from './clock.ts';
import { unusable } from './ended.ts';
import { isAsleep, noSandbox } from './entrance.ts';
import { PaddockError } from './errors.ts';
import type { SandboxRef, TeamId } from './ids.ts';
import type { Pausing } from './pausing.ts';
import type { Resuming } from './resuming.ts';
import type { Sandbox } from './sandbox.ts';
import type { Store } from './store.ts';

interface WakingDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly pausing: Pausing;
  readonly resuming: Resuming;
}

const wakesWithinMs = 6000;

/** Waits for sandboxes that are between two states, and wakes those that are paused. */
export class Waking {
  readonly #deps: WakingDeps;

  constructor(deps: WakingDeps) {
    this.#deps = deps;
  }

  /** A sandbox of the team as it is when it rests, or when the time is up. Throws `not_found`. */
  async settled(teamId: TeamId, ref: SandboxRef, withinMs: number): Promise<Sandbox> {
    const until = this.#deps.clock.now() + withinMs;
    for (let pause = 5; ; pause = Math.min(pause * 2, 100)) {
      const sandbox = await this.#deps.store.sandboxes.find(teamId, ref);
      if (sandbox === null) throw noSandbox();
      if (!['creating', 'pausing', 'resuming'].includes(sandbox.state) || this.#deps.clock.now() >= until) return sandbox;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  /** Calls that come together share one resume. Resolves to a sandbox that is not asleep; it may have ended. */
  async awaken(found: Sandbox): Promise<Sandbox> {
    const { store, clock, pausing, resuming } = this.#deps;
    const until = clock.now() + wakesWithinMs;
    for (let sandbox = found; ; ) {
      await pausing.settled(sandbox.id);
      if (!isAsleep(sandbox)) return sandbox;
      try {
        const underWay = resuming.underWay(sandbox.id);
        if (underWay !== undefined) return await underWay;
        if (sandbox.state === 'paused') return await resuming.resume(sandbox);
      } catch (error) {
        // Somebody else was first: that one's resume is as good.
        if (!(error instanceof PaddockError) || error.code !== 'conflict' || clock.now() >= until) throw error;
      }
      if (clock.now() >= until) throw unusable(sandbox) ?? new PaddockError('conflict', `the sandbox is ${sandbox.state}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
      const now = await store.sandboxes.find(null, { id: sandbox.id });
      if (now === null) throw noSandbox();
      sandbox = now;
    }
  }
}
