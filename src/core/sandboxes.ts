import { Admission } from './admission.ts';
import { Births } from './births.ts';
import type { Clock } from './clock.ts';
import { assertTimeout, type CreateSandbox } from './create-input.ts';
import { Creation } from './creation.ts';
import { Deadlines } from './deadlines.ts';
import { endOf, goneError, unusable } from './ended.ts';
import { Endings } from './endings.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { Guest, GuestUsage, Host } from './host.ts';
import type { SandboxId, SandboxRef } from './ids.ts';
import type { Principal } from './principal.ts';
import { recover } from './recovery.ts';
import { Retention } from './retention.ts';
import { liveStates, type EndReason, type Sandbox } from './sandbox.ts';
import type { CoreSettings } from './settings.ts';
import type { SandboxPage, SandboxQuery, Store } from './store.ts';
import type { TemplateCatalog } from './template.ts';
import type { Tokens } from './tokens.ts';

export type { CreateSandbox } from './create-input.ts';

export interface SandboxesDeps {
  readonly store: Store;
  readonly host: Host;
  readonly templates: TemplateCatalog;
  readonly clock: Clock;
  readonly tokens: Tokens;
  readonly settings: CoreSettings;
  readonly events: EventLog;
}

const killsAtOnce = 16;
const deathIsRecordedWithinMs = 1000;
const mostRememberedOwners = 10_000;

/** The life of sandboxes: every use case that creates, ends or looks at one. */
export class Sandboxes {
  readonly #store: Store;
  readonly #host: Host;
  readonly #clock: Clock;
  readonly #tokens: Tokens;
  readonly #settings: CoreSettings;
  readonly #events: EventLog;
  readonly #deadlines: Deadlines;
  readonly #births = new Births();
  readonly #admission: Admission;
  readonly #endings: Endings;
  readonly #creation: Creation;
  readonly #retention: Retention;
  /** Never changes, so it is read once. */
  readonly #owners = new Map<SandboxId, Principal>();
  #state: 'new' | 'started' | 'stopped' = 'new';

  constructor(deps: SandboxesDeps) {
    const { store, host, clock, settings, events } = deps;
    this.#store = store;
    this.#host = host;
    this.#clock = clock;
    this.#tokens = deps.tokens;
    this.#settings = settings;
    this.#events = events;
    this.#deadlines = new Deadlines(clock);
    this.#admission = new Admission(settings.maxSandboxes);
    this.#endings = new Endings({ store, host, clock, events, deadlines: this.#deadlines, births: this.#births });
    this.#endings.onEnd((id) => this.#admission.leave(id));
    this.#creation = new Creation({ ...deps, admission: this.#admission, births: this.#births, endings: this.#endings, deadlines: this.#deadlines });
    this.#retention = new Retention({ store, clock, settings, deadlines: this.#deadlines });
  }

  /** Called once, before any other: brings rows and guests together again, and arms every deadline. */
  async start(): Promise<void> {
    if (this.#state !== 'new') throw new PaddockError('internal', 'the core can be started once only');
    this.#host.onDeath((id, death) => this.#endings.died(id, death));
    await recover({
      store: this.#store,
      host: this.#host,
      tokens: this.#tokens,
      admission: this.#admission,
      creation: this.#creation,
      endings: this.#endings,
      events: this.#events,
    });
    await this.#retention.start();
    this.#state = 'started';
  }

  /** Undoes the creates under way, waits for the teardowns under way, and leaves the sandboxes running. */
  async stop(): Promise<void> {
    this.#state = 'stopped';
    this.#births.failAll(new PaddockError('no_capacity', 'the server is stopping; try again in a moment', { retryAfterSeconds: 5 }));
    await this.#births.settled();
    await this.#endings.settled();
    this.#deadlines.stop();
  }

  async create(principal: Principal, input: CreateSandbox, signal: AbortSignal): Promise<Sandbox> {
    if (this.#state !== 'started') throw new PaddockError('no_capacity', 'the server is starting or stopping; try again in a moment', { retryAfterSeconds: 1 });
    return this.#creation.create(principal, input, signal);
  }

  /** Also one that has ended, as long as its tombstone is kept. Throws `not_found`. */
  async get(principal: Principal, ref: SandboxRef): Promise<Sandbox> {
    const sandbox = await this.#store.sandboxes.find(principal.teamId, ref);
    if (sandbox === null) throw notFound();
    return sandbox;
  }

  async list(principal: Principal, query: SandboxQuery): Promise<SandboxPage> {
    if (!Number.isInteger(query.limit) || query.limit < 1 || query.limit > 1000) {
      throw new PaddockError('invalid_argument', `limit must be from 1 to 1000, not ${query.limit}`, { field: 'limit' });
    }
    if (query.offset !== undefined && (!Number.isSafeInteger(query.offset) || query.offset < 0)) {
      throw new PaddockError('invalid_argument', `offset must be 0 or more, not ${query.offset}`, { field: 'offset' });
    }
    return this.#store.sandboxes.list(principal.teamId, query);
  }

  /** Ends a sandbox in whatever state and waits until it holds nothing; false when it had ended, or another caller ends it. */
  async kill(principal: Principal, ref: SandboxRef): Promise<{ readonly killed: boolean }> {
    const sandbox = await this.get(principal, ref);
    return { killed: await this.#end(sandbox, 'killed') };
  }

  /** Like `kill`, but returns as soon as the end is decided; the rest follows, also over a restart. */
  async killLater(principal: Principal, ref: SandboxRef): Promise<void> {
    const sandbox = await this.get(principal, ref);
    if (await this.#endings.claim(sandbox.id, 'killed')) this.#endings.finishInBackground(sandbox);
  }

  /** The owner has seen that the sandbox died: from now on it counts as killed. Nothing happens to one that lives. */
  async acknowledgeDeath(principal: Principal, ref: SandboxRef): Promise<void> {
    const sandbox = await this.get(principal, ref);
    if (sandbox.state !== 'killed' || sandbox.end === null || sandbox.end.reason === 'killed') return;
    const { at, reason, detail } = sandbox.end;
    await this.#store.sandboxes.transition(sandbox.id, ['killed'], 'killed', { end: endOf(at, 'killed', `${reason}: ${detail}`) });
  }

  /** The countdown starts again from now; 0 takes the deadline away. */
  async setTimeout(principal: Principal, ref: SandboxRef, seconds: number): Promise<Sandbox> {
    assertTimeout('timeout', seconds, this.#settings);
    let sandbox = await this.get(principal, ref);
    for (;;) {
      const reason = unusable(sandbox);
      if (reason !== null && sandbox.state !== 'paused') throw reason;
      const endAt = seconds === 0 ? null : this.#clock.now() + seconds * 1000;
      const changed = await this.#store.sandboxes.transition(sandbox.id, [sandbox.state], sandbox.state, { timeoutSeconds: seconds, endAt });
      if (changed !== null) {
        this.#endings.watch(changed);
        this.#events.ofSandbox(changed, 'lifecycle', 'timeout_changed', { timeoutSeconds: seconds });
        return changed;
      }
      sandbox = await this.get(principal, ref);
    }
  }

  /** One sample, taken now. */
  async metrics(principal: Principal, ref: SandboxRef): Promise<readonly GuestUsage[]> {
    return this.inside(principal, ref, async (_guest, sandbox) => [await this.#host.usage(sandbox.id)]);
  }

  /** For whatever uses the inside. Throws `not_found`, `conflict` while it is created or paused, `gone` with the reason when it has ended. */
  async use(principal: Principal, ref: SandboxRef): Promise<{ readonly sandbox: Sandbox; readonly guest: Guest }> {
    return this.#enter(await this.get(principal, ref));
  }

  /** Whose a sandbox is, for whoever has shown by other means that they may use it. Throws `not_found`. */
  async ownerOf(id: SandboxId): Promise<Principal> {
    let owner = this.#owners.get(id);
    if (owner === undefined) {
      const sandbox = await this.#store.sandboxes.find(null, { id });
      if (sandbox === null) throw notFound();
      owner = Object.freeze({ teamId: sandbox.teamId, keyId: 'sandbox token' });
      if (this.#owners.size >= mostRememberedOwners) this.#owners.clear();
      this.#owners.set(id, owner);
    }
    return owner;
  }

  /** Like `use`, for access that needs no key: whoever knows the name of a sandbox whose ports are public. */
  async usePublic(ref: SandboxRef): Promise<{ readonly sandbox: Sandbox; readonly guest: Guest }> {
    const sandbox = await this.#store.sandboxes.find(null, ref);
    if (sandbox === null || !sandbox.policy.allowPublicTraffic) throw notFound();
    return this.#enter(sandbox);
  }

  /** Like `use`, for whoever has the traffic token. A stranger's token opens nothing and does not tell what there is: `unauthenticated`. */
  async useByToken(ref: SandboxRef, trafficToken: string): Promise<{ readonly sandbox: Sandbox; readonly guest: Guest }> {
    const sandbox = await this.#store.sandboxes.find(null, ref);
    if (sandbox === null || !this.#tokens.opensTraffic(sandbox, trafficToken)) {
      throw new PaddockError('unauthenticated', 'the traffic token is not the one of this sandbox; its traffic_access_token is');
    }
    return this.#enter(sandbox);
  }

  /** `use`, with errors of the work explained: a guest that dies meanwhile is reported with the reason of its death. */
  async inside<T>(principal: Principal, ref: SandboxRef, work: (guest: Guest, sandbox: Sandbox) => Promise<T>): Promise<T> {
    const { sandbox, guest } = await this.use(principal, ref);
    try {
      return await work(guest, sandbox);
    } catch (error) {
      throw await this.explain(sandbox, error);
    }
  }

  /** Any thrown value as a PaddockError; one that says the guest is gone gets the reason why. */
  async explain(sandbox: Sandbox, thrown: unknown): Promise<PaddockError> {
    const error = PaddockError.from(thrown);
    if (error.code !== 'gone') return error;
    const end = await this.#endings.awaitEnd(sandbox, deathIsRecordedWithinMs);
    return end === null ? error : goneError(end);
  }

  /** The guest of a sandbox, for work of the core itself; null when there is none. */
  guestOf(id: SandboxId): Guest | null {
    try {
      return this.#host.guest(id);
    } catch {
      return null;
    }
  }

  /** Every sandbox that has a guest, over all teams. */
  async running(): Promise<readonly Sandbox[]> {
    return this.#store.sandboxes.inStates(['running']);
  }

  /** Tells when a sandbox has ended, once each. */
  onEnd(listener: (id: SandboxId) => void): void {
    this.#endings.onEnd(listener);
  }

  /** Ends everything; how many it ended. Waits for all of them, and throws the first failure afterwards. */
  async killAll(reason: EndReason): Promise<number> {
    const left = [...(await this.#store.sandboxes.inStates([...liveStates, 'killing']))];
    const failures: unknown[] = [];
    let ended = 0;
    const worker = async (): Promise<void> => {
      for (let sandbox = left.pop(); sandbox !== undefined; sandbox = left.pop()) {
        try {
          if (await this.#end(sandbox, reason)) ended += 1;
        } catch (error) {
          failures.push(error);
        }
      }
    };
    await Promise.all(Array.from({ length: killsAtOnce }, worker));
    if (failures.length > 0) throw PaddockError.from(failures[0]);
    return ended;
  }

  async #end(sandbox: Sandbox, reason: EndReason): Promise<boolean> {
    const claimed = await this.#endings.claim(sandbox.id, reason);
    const now = await this.#store.sandboxes.find(sandbox.teamId, { id: sandbox.id });
    if (now?.state === 'killing') await this.#endings.finish(now);
    return claimed;
  }

  async #enter(sandbox: Sandbox): Promise<{ readonly sandbox: Sandbox; readonly guest: Guest }> {
    const reason = unusable(sandbox);
    if (reason !== null) throw reason;
    try {
      return { sandbox, guest: this.#host.guest(sandbox.id) };
    } catch (error) {
      // It died a moment ago, and its row does not say so yet.
      throw await this.explain(sandbox, error);
    }
  }
}

function notFound(): PaddockError {
  return new PaddockError('not_found', 'there is no such sandbox; it may have ended long ago, or belong to another team');
}
