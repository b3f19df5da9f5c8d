import type { Admission } from './admission.ts';
import { capture } from './capture.ts';
import type { Clock } from './clock.ts';
import type { Deadlines } from './deadlines.ts';
import { unusable } from './ended.ts';
import type { Endings } from './endings.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { Expiry } from './expiry.ts';
import type { CheckpointRef, Host, Lap } from './host.ts';
import { newSnapshotId, type SandboxId } from './ids.ts';
import type { Keeping } from './keeping.ts';
import { measured, type Measures } from './measures.ts';
import type { ProcessClock } from './process-clock.ts';
import { crashes, type PauseCause, type Sandbox } from './sandbox.ts';
import type { Snapshot } from './snapshot.ts';
import type { SandboxGuard, Store } from './store.ts';

export interface PausingDeps {
  readonly measures: Measures | undefined;
  readonly store: Store;
  readonly host: Host;
  readonly clock: Clock;
  readonly processes: ProcessClock;
  readonly events: EventLog;
  readonly deadlines: Deadlines;
  readonly admission: Admission;
  readonly endings: Endings;
  readonly expiry: Expiry;
  readonly keeping: Keeping;
}

const againAfterMs = 2000;

/**
 * Puts sandboxes to sleep so that nothing can be lost: the guest stands still, its state is on disk, the row says so, and only then
 * is it let go. Until that moment every failure ends with the guest running on.
 */
export class Pausing {
  readonly #deps: PausingDeps;
  /** Until the guests have been let go. */
  readonly #underWay = new Map<SandboxId, Promise<void>>();
  readonly #releasing = new Map<SandboxId, Promise<void>>();

  constructor(deps: PausingDeps) {
    this.#deps = deps;
  }

  /**
   * Resolves when the sandbox is paused for good, which is before all that it held has been given back. Throws what keeps it from being paused; it
   * runs on then, unless it has ended. A caller that leaves does not stop it.
   */
  pause(sandbox: Sandbox, cause: PauseCause, guard: SandboxGuard = {}, lap?: Lap): Promise<Sandbox> {
    return measured(this.#deps.measures, 'pause', sandbox.wire, lap, (told) => this.#pause(sandbox, cause, guard, told));
  }

  async #pause(sandbox: Sandbox, cause: PauseCause, guard: SandboxGuard, lap: Lap): Promise<Sandbox> {
    const { id } = sandbox;
    const now = this.#deps.clock.now();
    const unfinished: Snapshot = Object.freeze({
      id: newSnapshotId(),
      teamId: sandbox.teamId,
      sandboxId: id,
      source: 'pause',
      name: null,
      idempotencyKey: null,
      checkpoint: null,
      createdAt: now,
      readyAt: null,
      captured: capture(sandbox, this.#deps.processes.remaining(id)),
    });
    const claimed = await this.#claim(unfinished, cause, guard);
    if (claimed === null) {
      const row = await this.#deps.store.sandboxes.find(null, { id });
      throw (row === null ? null : unusable(row)) ?? new PaddockError('conflict', 'the sandbox changed meanwhile; try again');
    }
    const { promise: saved, resolve, reject } = Promise.withResolvers<Sandbox>();
    const work = this.#save(claimed, unfinished, now, resolve, lap).catch(reject).finally(() => this.#underWay.delete(id));
    this.#underWay.set(id, work);
    return saved;
  }

  async #claim(unfinished: Snapshot, cause: PauseCause, guard: SandboxGuard): Promise<Sandbox | null> {
    using _held = this.#deps.keeping.hold(unfinished.id);
    return await this.#deps.store.sandboxes.transitionWith(unfinished, ['running'], 'pausing', { pauseCause: cause }, guard);
  }

  /** Resolves when the pause under way is over, well or not, and the guest has been let go; at once when there is none. */
  async settled(id: SandboxId): Promise<void> {
    await this.#underWay.get(id);
  }

  async allSettled(): Promise<void> {
    await Promise.all(this.#underWay.values());
  }

  /** Resolves when the guest of a sandbox that is paused already has been let go; at once when none is. */
  async released(id: SandboxId): Promise<void> {
    await this.#releasing.get(id);
  }

  async #save(sandbox: Sandbox, unfinished: Snapshot, begun: number, saved: (paused: Sandbox) => void, lap?: Lap): Promise<void> {
    const { host, store, clock, endings, keeping } = this.#deps;
    const { id } = sandbox;
    using _held = keeping.hold(unfinished.id);
    let checkpoint: CheckpointRef;
    try {
      checkpoint = await host.checkpoint(id, { checkpointId: unfinished.id, hold: true, ...(lap === undefined ? {} : { lap }) }, AbortSignal.timeout(checkpointWithinMs));
    } catch (error) {
      throw await this.#runOn(sandbox, unfinished, error);
    }
    // From here on the guest's death loses nothing.
    endings.ignoreDeath(id, true);
    try {
      const pausedAt = clock.now();
      const { autoDeleteSeconds } = sandbox.lifecycle;
      const ready: Snapshot = { ...unfinished, checkpoint, readyAt: pausedAt };
      let paused: Sandbox | null;
      try {
        paused = await store.sandboxes.transitionWith(ready, ['pausing'], 'paused', {
          guest: null,
          endAt: null,
          periodStartedAt: null,
          pausedAt,
          autoDeleteAt: autoDeleteSeconds === null ? null : pausedAt + autoDeleteSeconds * 1000,
        });
      } catch (error) {
        await host.proceed(id).catch(() => undefined);
        throw await this.#runOn(sandbox, unfinished, error);
      }
      lap?.('store');
      if (paused === null) throw await this.#tooLate(sandbox, ready);
      this.#deps.events.ofSandbox(paused, 'lifecycle', 'paused', { cause: paused.pauseCause, bytes: checkpoint.bytes, memoryBytes: checkpoint.memoryBytes, durationMs: clock.now() - begun });
      const releasing = this.#letGo(paused, unfinished).finally(() => this.#releasing.delete(id));
      this.#releasing.set(id, releasing);
      saved(paused);
      await releasing;
    } finally {
      endings.ignoreDeath(id, false);
    }
  }

  /** The row says paused: what follows cannot fail it any more. */
  async #letGo(paused: Sandbox, snapshot: Snapshot): Promise<void> {
    const { host, admission, expiry, keeping, events, endings } = this.#deps;
    this.#deps.processes.suspend(paused.id);
    try {
      await host.retire(paused.id, snapshot.id, pausedError());
    } catch (error) {
      events.ofSandbox(paused, 'lifecycle', 'retire_failed', { message: PaddockError.from(error).message });
      await endings.destroyGuest(paused.id).catch(() => undefined); // the next start removes what is left
    }
    admission.leave(paused.id);
    expiry.watch(paused);
    keeping.dropOlderPauses(paused.id);
  }

  /** Back to running; resolves to the error to be thrown. */
  async #runOn(sandbox: Sandbox, unfinished: Snapshot, thrown: unknown): Promise<PaddockError> {
    const { store, events, endings, keeping } = this.#deps;
    let error = PaddockError.from(thrown);
    const running = await this.#unpause(sandbox);
    if (running === null) {
      const end = await endings.awaitEnd(sandbox, 1000);
      const row = await store.sandboxes.find(null, { id: sandbox.id });
      error = (row === null ? null : unusable(row)) ?? (end === null ? error : PaddockError.from(thrown));
    }
    events.ofSandbox(sandbox, 'lifecycle', 'pause_failed', { code: error.code, message: error.message });
    keeping.removeInBackground(unfinished);
    return error.code === 'internal' ? new PaddockError('unprocessable', `the sandbox could not be paused, and runs on: ${error.message}`, {}, { cause: error }) : error;
  }

  /** Null when it is running no more. A store that fails now is tried again later: the guest runs whatever its row says. */
  async #unpause(sandbox: Sandbox): Promise<Sandbox | null> {
    const { store, deadlines, clock, expiry } = this.#deps;
    try {
      const running = await store.sandboxes.transition(sandbox.id, ['pausing'], 'running', { pauseCause: null, snapshotId: null });
      if (running !== null) expiry.watch(running);
      return running;
    } catch {
      deadlines.arm(`unpause ${sandbox.id}`, clock.now() + againAfterMs, () => void this.#unpause(sandbox));
      return sandbox;
    }
  }

  /** It was ended while it was saved. After a crash its owner may still want what was saved. */
  async #tooLate(sandbox: Sandbox, ready: Snapshot): Promise<PaddockError> {
    const { store, keeping, host } = this.#deps;
    const row = await store.sandboxes.find(null, { id: sandbox.id });
    if (row?.state === 'killed' && row.end !== null && crashes.includes(row.end.reason) && ready.checkpoint !== null && ready.readyAt !== null) {
      await store.snapshots.finish(ready.id, ready.checkpoint, ready.readyAt);
    } else {
      keeping.removeInBackground(ready);
      if (row?.state === 'running') await host.proceed(sandbox.id).catch(() => undefined);
    }
    return (row === null ? null : unusable(row)) ?? new PaddockError('conflict', 'the sandbox changed while it was paused; try again');
  }
}

const checkpointWithinMs = 15 * 60_000;

/** For whoever was connected to a sandbox when it was paused. */
function pausedError(): PaddockError {
  return new PaddockError('conflict', 'the sandbox was paused; what runs in it goes on when it is resumed', { reason: 'paused' });
}
