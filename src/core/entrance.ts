import { goneError, unusable } from './ended.ts';
import type { Endings } from './endings.ts';
import { PaddockError } from './errors.ts';
import type { Guest, Host } from './host.ts';
import type { SandboxRef } from './ids.ts';
import type { Principal } from './principal.ts';
import type { Sandbox } from './sandbox.ts';
import type { Store } from './store.ts';
import type { Tokens } from './tokens.ts';

export interface Entered {
  readonly sandbox: Sandbox;
  readonly guest: Guest;
}

interface EntranceDeps {
  readonly store: Store;
  readonly host: Host;
  readonly tokens: Tokens;
  readonly endings: Endings;
  /** Brings back a sandbox that is paused, or on its way there or back; resolves to it as it is then. */
  readonly awaken: (sandbox: Sandbox) => Promise<Sandbox>;
}

const deathIsRecordedWithinMs = 1000;
/** A sandbox may be paused again before its turn comes. */
const mostTries = 5;

/** The way into a sandbox, for whatever uses its inside: who may enter, what state it is in, and waking it where it asks for that. */
export class Entrance {
  readonly #deps: EntranceDeps;

  constructor(deps: EntranceDeps) {
    this.#deps = deps;
  }

  /** Throws `not_found`, `conflict` while it is created or paused, `gone` with the reason when it has ended. */
  async use(principal: Principal, ref: SandboxRef): Promise<Entered> {
    const sandbox = await this.#deps.store.sandboxes.find(principal.teamId, ref);
    if (sandbox === null) throw noSandbox();
    return this.#enter(sandbox);
  }

  /** For access that needs no key: whoever knows the name of a sandbox whose ports are public. */
  async usePublic(ref: SandboxRef): Promise<Entered> {
    const sandbox = await this.#deps.store.sandboxes.find(null, ref);
    if (sandbox === null || !sandbox.policy.allowPublicTraffic) throw noSandbox();
    return this.#enter(sandbox);
  }

  /** For whoever has the traffic token. A stranger's token opens nothing and does not tell what there is: `unauthenticated`. */
  async useByToken(ref: SandboxRef, trafficToken: string): Promise<Entered> {
    const sandbox = await this.#deps.store.sandboxes.find(null, ref);
    if (sandbox === null || !this.#deps.tokens.opensTraffic(sandbox, trafficToken)) {
      throw new PaddockError('unauthenticated', 'the traffic token is not the one of this sandbox; its traffic_access_token is');
    }
    return this.#enter(sandbox);
  }

  /** `use`, with errors of the work explained. Work that a pause kept from beginning is begun again, where the sandbox resumes by itself. */
  async inside<T>(principal: Principal, ref: SandboxRef, work: (guest: Guest, sandbox: Sandbox) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      const { sandbox, guest } = await this.use(principal, ref);
      try {
        return await work(guest, sandbox);
      } catch (thrown) {
        const error = await this.explain(sandbox, thrown);
        if (error.detail.unsent !== true || !sandbox.lifecycle.autoResume || tries === mostTries) throw error;
      }
    }
  }

  /** Any thrown value as a PaddockError; one that says the guest is gone gets the reason why. */
  async explain(sandbox: Sandbox, thrown: unknown): Promise<PaddockError> {
    const error = PaddockError.from(thrown);
    if (error.code !== 'gone') return error;
    const end = await this.#deps.endings.awaitEnd(sandbox, deathIsRecordedWithinMs);
    return end === null ? error : goneError(end);
  }

  async #enter(found: Sandbox): Promise<Entered> {
    let sandbox = found;
    for (let tries = 1; ; tries++) {
      const reason = unusable(sandbox);
      if (reason !== null) {
        if (!isAsleep(sandbox) || !sandbox.lifecycle.autoResume || tries === mostTries) throw reason;
        sandbox = await this.#deps.awaken(sandbox);
      }
      const guest = this.#guestOf(sandbox);
      if (guest !== null) return { sandbox, guest };
      const now = await this.#deps.store.sandboxes.find(null, { id: sandbox.id });
      // It was paused, or died a moment ago and its row does not say so yet.
      if (now === null || now.state === 'running' || tries === mostTries) throw await this.explain(sandbox, new PaddockError('gone', 'the sandbox has ended'));
      sandbox = now;
    }
  }

  #guestOf(sandbox: Sandbox): Guest | null {
    try {
      return sandbox.state === 'running' ? this.#deps.host.guest(sandbox.id) : null;
    } catch {
      return null;
    }
  }
}

export function isAsleep(sandbox: Sandbox): boolean {
  return sandbox.state === 'pausing' || sandbox.state === 'paused' || sandbox.state === 'resuming';
}

export function noSandbox(): PaddockError {
  return new PaddockError('not_found', 'there is no such sandbox; it may have ended long ago, or belong to another team');
}
