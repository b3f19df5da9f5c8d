import { Admission } from './admission.ts';
import { Births } from './births.ts';
import type { Clock } from './clock.ts';
import { Changes, type SandboxUpdate } from './changes.ts';
import type { CreateSandbox } from './create-input.ts';
import { Creation } from './creation.ts';
import { Deadlines } from './deadlines.ts';
import { endOf, unusable } from './ended.ts';
import { Endings } from './endings.ts';
import { eachOf } from './each-of.ts';
import { Entrance, noSandbox, type Entered } from './entrance.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import { Expiry } from './expiry.ts';
import { Forks } from './forks.ts';
import type { Guest, GuestUsage, Host, Lap } from './host.ts';
import { Identities, type NamingTable } from './identity.ts';
import type { SandboxId, SandboxRef } from './ids.ts';
import { Keeping } from './keeping.ts';
import { measured, type Measures } from './measures.ts';
import { Pausing } from './pausing.ts';
import type { Principal } from './principal.ts';
import { ProcessClockSlot, type ProcessClock } from './process-clock.ts';
import { recover } from './recovery.ts';
import { Resuming } from './resuming.ts';
import { Retention } from './retention.ts';
import { liveStates, type EndReason, type Sandbox } from './sandbox.ts';
import { Arming } from './secrets/arming.ts';
import type { SecretBindings } from './secrets/bindings.ts';
import type { CoreSettings } from './settings.ts';
import { Snapshots } from './snapshots.ts';
import type { SandboxPage, SandboxQuery, Store } from './store.ts';
import type { TemplateCatalog } from './template.ts';
import type { TemplateShelf } from './templates/shelf.ts';
import type { Tokens } from './tokens.ts';
import type { VolumeAttachments } from './volume-attachments.ts';
import { Waking } from './waking.ts';

export interface SandboxesDeps {
  readonly store: Store;
  readonly host: Host;
  readonly templates: TemplateCatalog;
  readonly shelf: TemplateShelf;
  readonly clock: Clock;
  readonly tokens: Tokens;
  readonly settings: CoreSettings;
  readonly events: EventLog;
  readonly naming: NamingTable;
  readonly volumes: VolumeAttachments;
  readonly measures?: Measures | undefined;
  readonly bindings: SecretBindings;
}

/** A sandbox that something could not be done to. */
export interface Failure {
  readonly sandbox: Sandbox;
  readonly error: PaddockError;
}

const killsAtOnce = 16;
const mostRememberedOwners = 10_000;
/** Checkpoints fill memory bandwidth and disk: more at once only make each slower. */
const pausesAtOnce = 2;
const settlesWithinMs = 2000;
const activatesWithinMs = 6000;

/** The life of sandboxes: every use case that creates, pauses, resumes, ends or looks at one. */
export class Sandboxes {
  readonly snapshots: Snapshots;
  readonly forks: Forks;
  /** Brings changes of secrets in force. */
  readonly arming: Arming;
  readonly #deps: SandboxesDeps;
  readonly #store: Store;
  readonly #deadlines: Deadlines;
  readonly #births = new Births();
  readonly #processes = new ProcessClockSlot();
  readonly #admission: Admission;
  readonly #endings: Endings;
  readonly #expiry: Expiry;
  readonly #creation: Creation;
  readonly #pausing: Pausing;
  readonly #resuming: Resuming;
  readonly #changes: Changes;
  readonly #waking: Waking;
  readonly #entrance: Entrance;
  readonly #retention: Retention;
  /** Never changes, so it is read once. */
  readonly #owners = new Map<SandboxId, Principal>();
  #state: 'new' | 'started' | 'stopped' = 'new';

  constructor(deps: SandboxesDeps) {
    const { store, host, clock, settings, events, tokens, bindings, measures } = deps;
    this.#deps = deps;
    this.#store = store;
    const deadlines = new Deadlines(clock);
    const admission = new Admission(settings.maxSandboxes);
    const births = this.#births;
    const processes = this.#processes;
    const endings = new Endings({ store, host, clock, events, deadlines, births });
    const expiry = new Expiry({ store, clock, deadlines, endings });
    const keeping = new Keeping({ store, host, clock, events, deadlines, spared: () => deps.shelf.sparedCheckpoints() });
    const identities = new Identities(deps);
    const arming = new Arming({ store, host, events, bindings, identities });
    this.arming = arming;
    const creation = new Creation({ ...deps, arming, identities, admission, births, endings, deadlines, expiry });
    const pausing = new Pausing({ measures, processes, store, host, clock, events, deadlines, admission, endings, expiry, keeping });
    const resuming = new Resuming({ measures, processes, store, host, clock, events, admission, births, endings, expiry, pausing, identities, tokens, bindings, arming, volumes: deps.volumes });
    const waking = new Waking({ store, clock, pausing, resuming });
    const settledSandbox = (principal: Principal, ref: SandboxRef): Promise<Sandbox> => waking.settled(principal.teamId, ref, settlesWithinMs);
    this.snapshots = new Snapshots({ processes, store, host, clock, events, settings, keeping, resuming, settledSandbox });
    this.forks = new Forks({ measures, processes, bindings, host, clock, events, settings, admission, creation, keeping, resuming, snapshots: this.snapshots, volumes: deps.volumes, settledSandbox, kill: (sandbox) => this.#end(sandbox, 'killed') });
    endings.onEnd((id, sandbox) => {
      admission.leave(id);
      keeping.ended(sandbox);
      measures?.ended(sandbox.end?.reason ?? 'killed');
      deps.volumes.ended(sandbox);
    });
    endings.releasedBy((id) => pausing.released(id));
    expiry.pauseBy((sandbox, cause, guard) => pausing.pause(sandbox, cause, guard));
    this.#deadlines = deadlines;
    this.#admission = admission;
    this.#endings = endings;
    this.#expiry = expiry;
    this.#creation = creation;
    this.#pausing = pausing;
    this.#resuming = resuming;
    this.#entrance = new Entrance({ store, host, tokens, endings, awaken: (sandbox) => waking.awaken(sandbox) });
    this.#changes = new Changes({ store, clock, events, settings, expiry });
    this.#waking = waking;
    this.#retention = new Retention({ store, clock, settings, deadlines, sweepSnapshots: () => keeping.sweep() });
  }

  /** Says who counts the time of processes; before `start`. */
  countProcessesWith(clock: ProcessClock): void {
    this.#processes.fill(clock);
  }

  /** Called once, before any other: brings rows and guests together again, and arms every deadline. */
  async start(): Promise<void> {
    if (this.#state !== 'new') throw new PaddockError('internal', 'the core can be started once only');
    this.#deps.host.onDeath((id, death) => this.#endings.died(id, death));
    await recover({ ...this.#deps, admission: this.#admission, creation: this.#creation, endings: this.#endings, expiry: this.#expiry });
    await this.#retention.start();
    this.#state = 'started';
  }

  /** Undoes the creates under way, waits for what else is under way, and leaves the sandboxes as they are. */
  async stop(): Promise<void> {
    this.#state = 'stopped';
    this.#births.failAll(new PaddockError('no_capacity', 'the server is stopping; try again in a moment', { retryAfterSeconds: 5 }));
    await this.#births.settled();
    await Promise.all([this.#pausing.allSettled(), this.#resuming.allSettled(), this.snapshots.settled()]);
    await this.#endings.settled();
    this.arming.stop();
    this.#deadlines.stop();
  }

  async create(principal: Principal, input: CreateSandbox, signal: AbortSignal): Promise<Sandbox> {
    if (this.#state !== 'started') throw new PaddockError('no_capacity', 'the server is starting or stopping; try again in a moment', { retryAfterSeconds: 1 });
    return measured(this.#deps.measures, 'create', input.wire, input.lap, (lap) => this.#creation.create(principal, { ...input, lap }, signal));
  }

  /** Also one that has ended, as long as its tombstone is kept. Throws `not_found`. */
  async get(principal: Principal, ref: SandboxRef): Promise<Sandbox> {
    const sandbox = await this.#store.sandboxes.find(principal.teamId, ref);
    if (sandbox === null) throw noSandbox();
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

  /** Saves a running sandbox with its memory and processes, and frees what it holds. When it fails, the sandbox runs on. A caller that leaves does not stop it. */
  async pause(principal: Principal, ref: SandboxRef, lap?: Lap): Promise<Sandbox> {
    const sandbox = await this.get(principal, ref);
    const reason = unusable(sandbox);
    if (reason !== null) throw reason;
    return this.#pausing.pause(sandbox, 'asked', {}, lap);
  }

  /** Brings a paused sandbox back; `conflict` when it is anything else, or somebody else was first. One that is just being paused is waited for. */
  async resume(principal: Principal, ref: SandboxRef, lap?: Lap): Promise<Sandbox> {
    const sandbox = await this.get(principal, ref);
    return this.#resuming.resume(sandbox.state === 'pausing' ? await this.#waking.settled(principal.teamId, ref, settlesWithinMs) : sandbox, lap);
  }

  /** A sandbox that runs: as it is, or resumed first. Calls that come together cause one resume. */
  async activate(principal: Principal, ref: SandboxRef): Promise<Sandbox> {
    const running = await this.#waking.awaken(await this.#waking.settled(principal.teamId, ref, activatesWithinMs));
    const reason = unusable(running);
    if (reason !== null) throw reason;
    return running;
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

  /** The countdown starts again from now, or with the next resume; 0 takes the deadline away. */
  setTimeout(principal: Principal, ref: SandboxRef, seconds: number): Promise<Sandbox> {
    return this.#changes.setTimeout(principal, ref, seconds);
  }

  update(principal: Principal, ref: SandboxRef, update: SandboxUpdate): Promise<Sandbox> {
    return this.#changes.update(principal, ref, update);
  }

  /** One sample, taken now. */
  async metrics(principal: Principal, ref: SandboxRef): Promise<readonly GuestUsage[]> {
    return this.inside(principal, ref, async (_guest, sandbox) => [await this.#deps.host.usage(sandbox.id)]);
  }

  /** For whatever uses the inside. Throws `not_found`, `conflict` while it is created or paused, `gone` with the reason when it has ended. */
  use(principal: Principal, ref: SandboxRef): Promise<Entered> {
    return this.#entrance.use(principal, ref);
  }

  /** Whose a sandbox is, for whoever has shown by other means that they may use it. Throws `not_found`. */
  async ownerOf(id: SandboxId): Promise<Principal> {
    let owner = this.#owners.get(id);
    if (owner === undefined) {
      const sandbox = await this.#store.sandboxes.find(null, { id });
      if (sandbox === null) throw noSandbox();
      owner = Object.freeze({ teamId: sandbox.teamId, keyId: 'sandbox token' });
      if (this.#owners.size >= mostRememberedOwners) this.#owners.clear();
      this.#owners.set(id, owner);
    }
    return owner;
  }

  /** Like `use`, for access that needs no key: whoever knows the name of a sandbox whose ports are public. */
  usePublic(ref: SandboxRef): Promise<Entered> {
    return this.#entrance.usePublic(ref);
  }

  /** Like `use`, for whoever has the traffic token. A stranger's token opens nothing and does not tell what there is: `unauthenticated`. */
  useByToken(ref: SandboxRef, trafficToken: string): Promise<Entered> {
    return this.#entrance.useByToken(ref, trafficToken);
  }

  /** `use`, with errors of the work explained: a guest that dies meanwhile is reported with the reason of its death. */
  inside<T>(principal: Principal, ref: SandboxRef, work: (guest: Guest, sandbox: Sandbox) => Promise<T>): Promise<T> {
    return this.#entrance.inside(principal, ref, work);
  }

  /** Any thrown value as a PaddockError; one that says the guest is gone gets the reason why. */
  explain(sandbox: Sandbox, thrown: unknown): Promise<PaddockError> {
    return this.#entrance.explain(sandbox, thrown);
  }

  /** The guest of a sandbox, for work of the core itself; null when there is none. */
  guestOf(id: SandboxId): Guest | null {
    try {
      return this.#deps.host.guest(id);
    } catch {
      return null;
    }
  }

  /** Every sandbox that has not ended, over all teams. */
  async living(): Promise<readonly Sandbox[]> {
    return this.#store.sandboxes.inStates(liveStates);
  }

  /** Tells when a sandbox has ended, once each. */
  onEnd(listener: (id: SandboxId, sandbox: Sandbox) => void): void {
    this.#endings.onEnd(listener);
  }

  /** Ends everything; how many it ended. Waits for all of them, and throws the first failure afterwards. */
  async killAll(reason: EndReason): Promise<number> {
    const all = await this.#store.sandboxes.inStates([...liveStates, 'killing']);
    return (await eachOf(all, killsAtOnce, (sandbox) => this.#end(sandbox, reason))).filter(Boolean).length;
  }

  /** Pauses everything that runs, so that the machine can go down; what cannot be paused runs on, and is named. */
  async pauseAll(): Promise<{ readonly paused: number; readonly failed: readonly Failure[] }> {
    const failed: Failure[] = [];
    const running = await this.#store.sandboxes.inStates(['running']);
    await eachOf(running, pausesAtOnce, (sandbox) => this.#pausing.pause(sandbox, 'operator').catch((error: unknown) => void failed.push({ sandbox, error: PaddockError.from(error) })));
    return { paused: running.length - failed.length, failed };
  }

  /** Brings back what `pauseAll` paused. What cannot be resumed stays paused, for its owner to try. */
  async resumeAll(): Promise<{ readonly resumed: number; readonly failed: readonly Failure[] }> {
    const failed: Failure[] = [];
    const waiting = (await this.#store.sandboxes.inStates(['paused'])).filter((sandbox) => sandbox.pauseCause === 'operator');
    await eachOf(waiting, pausesAtOnce, (sandbox) => this.#resuming.resume(sandbox).catch((error: unknown) => void failed.push({ sandbox, error: PaddockError.from(error) })));
    return { resumed: waiting.length - failed.length, failed };
  }

  async #end(sandbox: Sandbox, reason: EndReason): Promise<boolean> {
    const claimed = await this.#endings.claim(sandbox.id, reason);
    const now = await this.#store.sandboxes.find(sandbox.teamId, { id: sandbox.id });
    if (now?.state === 'killing') await this.#endings.finish(now);
    return claimed;
  }
}
