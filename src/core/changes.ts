import type { Clock } from './clock.ts';
import { assertLifecycle, assertMetadata, assertTimeout } from './create-input.ts';
import { unusable } from './ended.ts';
import { isAsleep, noSandbox } from './entrance.ts';
import type { EventLog } from './events.ts';
import type { Expiry } from './expiry.ts';
import type { SandboxRef } from './ids.ts';
import type { Principal } from './principal.ts';
import type { Sandbox } from './sandbox.ts';
import type { CoreSettings } from './settings.ts';
import type { SandboxPatch, Store } from './store.ts';

/** What may be changed of a sandbox in whatever state; what is absent stays. */
export interface SandboxUpdate {
  readonly metadata?: Readonly<Record<string, string>>;
  /** Of the running period, which began when it began; 0 for none. */
  readonly timeoutSeconds?: number;
  readonly maxLifetimeSeconds?: number | null;
  /** Counts from now when it is paused. */
  readonly autoDeleteSeconds?: number | null;
}

interface ChangesDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly events: EventLog;
  readonly settings: CoreSettings;
  readonly expiry: Expiry;
}

/** What owners change of their sandboxes while they exist: deadlines and metadata. */
export class Changes {
  readonly #deps: ChangesDeps;

  constructor(deps: ChangesDeps) {
    this.#deps = deps;
  }

  /** The countdown starts again from now, or with the next resume; 0 takes the deadline away. */
  async setTimeout(principal: Principal, ref: SandboxRef, seconds: number): Promise<Sandbox> {
    assertTimeout('timeout', seconds, this.#deps.settings);
    const changed = await this.#change(principal, ref, () => ({ timeoutSeconds: seconds, endAt: seconds === 0 ? null : this.#deps.clock.now() + seconds * 1000 }));
    this.#deps.events.ofSandbox(changed, 'lifecycle', 'timeout_changed', { timeoutSeconds: seconds });
    return changed;
  }

  async update(principal: Principal, ref: SandboxRef, update: SandboxUpdate): Promise<Sandbox> {
    const { metadata, timeoutSeconds, maxLifetimeSeconds, autoDeleteSeconds } = update;
    if (metadata !== undefined) assertMetadata(metadata, this.#deps.settings);
    if (timeoutSeconds !== undefined) assertTimeout('timeout', timeoutSeconds, this.#deps.settings);
    assertLifecycle({ maxLifetimeSeconds: maxLifetimeSeconds ?? null, autoDeleteSeconds: autoDeleteSeconds ?? null }, this.#deps.settings);
    const changed = await this.#change(principal, ref, (sandbox) => ({
      ...(metadata === undefined ? {} : { metadata }),
      ...(timeoutSeconds === undefined ? {} : { timeoutSeconds, endAt: timeoutSeconds === 0 ? null : (sandbox.periodStartedAt ?? this.#deps.clock.now()) + timeoutSeconds * 1000 }),
      lifecycle: {
        ...sandbox.lifecycle,
        ...(maxLifetimeSeconds === undefined ? {} : { maxLifetimeSeconds }),
        ...(autoDeleteSeconds === undefined ? {} : { autoDeleteSeconds }),
      },
      ...(autoDeleteSeconds === undefined || sandbox.state !== 'paused' ? {} : { autoDeleteAt: autoDeleteSeconds === null ? null : this.#deps.clock.now() + autoDeleteSeconds * 1000 }),
    }));
    this.#deps.events.ofSandbox(changed, 'lifecycle', 'updated', { fields: Object.keys(update).join(',') });
    return changed;
  }

  /** Changes what holds in any state of a sandbox that has not ended. */
  async #change(principal: Principal, ref: SandboxRef, patchOf: (sandbox: Sandbox) => SandboxPatch): Promise<Sandbox> {
    for (;;) {
      const sandbox = await this.#find(principal, ref);
      const reason = unusable(sandbox);
      if (reason !== null && !isAsleep(sandbox)) throw reason;
      const { endAt, ...patch } = patchOf(sandbox);
      // A paused sandbox has no running period that could end.
      const whole = endAt === undefined || sandbox.state === 'paused' || sandbox.state === 'resuming' ? patch : { ...patch, endAt };
      const changed = await this.#deps.store.sandboxes.transition(sandbox.id, [sandbox.state], sandbox.state, whole, { lifecycle: sandbox.lifecycle });
      if (changed === null) continue;
      this.#deps.expiry.watch(changed);
      return changed;
    }
  }

  async #find(principal: Principal, ref: SandboxRef): Promise<Sandbox> {
    const sandbox = await this.#deps.store.sandboxes.find(principal.teamId, ref);
    if (sandbox === null) throw noSandbox();
    return sandbox;
  }
}
