import { capture } from './capture.ts';
import type { Clock } from './clock.ts';
import { unusable } from './ended.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { Host, Lap } from './host.ts';
import { newSnapshotId, type SandboxRef, type SnapshotId, type TeamId } from './ids.ts';
import type { Keeping } from './keeping.ts';
import type { ProcessClock } from './process-clock.ts';
import type { Principal } from './principal.ts';
import type { Resuming } from './resuming.ts';
import type { Sandbox } from './sandbox.ts';
import type { CoreSettings } from './settings.ts';
import { isReady, type ReadySnapshot, type Snapshot, type SnapshotSource } from './snapshot.ts';
import type { SnapshotPage, SnapshotQuery, Store } from './store.ts';

export interface SnapshotsDeps {
  readonly store: Store;
  readonly host: Host;
  readonly clock: Clock;
  readonly processes: ProcessClock;
  readonly events: EventLog;
  readonly settings: CoreSettings;
  readonly keeping: Keeping;
  readonly resuming: Resuming;
  /** A sandbox of the caller's, waited for while it is between two states. */
  readonly settledSandbox: (principal: Principal, ref: SandboxRef) => Promise<Sandbox>;
}

export interface CreateSnapshot {
  /** 1 to 64 characters. */
  readonly name?: string;
  /** 1 to 255 characters; a repeated request with the same key gets the same snapshot. */
  readonly idempotencyKey?: string;
  /** Hears of the stages. */
  readonly lap?: Lap;
}

const checkpointWithinMs = 15 * 60_000;
/** What users see; a fork's own is nobody's business. */
const shown: readonly SnapshotSource[] = ['manual', 'pause'];

/** Saved states of sandboxes that users made, and those that pausing made for them. */
export class Snapshots {
  readonly #deps: SnapshotsDeps;
  readonly #making = new Map<SnapshotId, Promise<unknown>>();

  constructor(deps: SnapshotsDeps) {
    this.#deps = deps;
  }

  /**
   * Of a running sandbox, which stands still meanwhile and loses its connections to the outside, or of a paused one. A caller that leaves
   * does not stop it. `replayed` tells that the key named one that was there.
   */
  async create(principal: Principal, ref: SandboxRef, input: CreateSnapshot = {}): Promise<{ readonly snapshot: ReadySnapshot; readonly replayed: boolean }> {
    assertText('name', input.name, 64);
    assertText('idempotency_key', input.idempotencyKey, 255);
    const sandbox = await this.#deps.settledSandbox(principal, ref);
    if (input.idempotencyKey !== undefined) {
      const earlier = await this.#deps.store.snapshots.findByKey(principal.teamId, sandbox.id, input.idempotencyKey);
      if (earlier !== null) return { snapshot: await this.#finished(earlier), replayed: true };
    }
    await this.#assertQuota(principal.teamId);
    const snapshot = await this.take(sandbox, 'manual', input);
    this.#deps.events.ofSandbox(sandbox, 'lifecycle', 'snapshot_created', { snapshotId: snapshot.id, bytes: snapshot.checkpoint.bytes, pausedForMs: snapshot.checkpoint.pausedForMs });
    return { snapshot, replayed: false };
  }

  /** Makes the snapshot of a sandbox that is running or paused; throws `conflict` or `gone` in any other state. */
  async take(sandbox: Sandbox, source: SnapshotSource, input: CreateSnapshot = {}): Promise<ReadySnapshot> {
    const { store, clock } = this.#deps;
    const paused = sandbox.state === 'paused' && sandbox.snapshotId !== null ? await store.snapshots.find(null, sandbox.snapshotId) : null;
    if (sandbox.state !== 'running' && paused?.checkpoint == null) throw unusable(sandbox) ?? new PaddockError('conflict', `the sandbox is ${sandbox.state}`);
    const snapshot: Snapshot = Object.freeze({
      id: newSnapshotId(),
      teamId: sandbox.teamId,
      sandboxId: sandbox.id,
      source,
      name: input.name ?? null,
      idempotencyKey: input.idempotencyKey ?? null,
      // A paused sandbox has been saved already: its files serve both.
      checkpoint: paused?.checkpoint ?? null,
      createdAt: clock.now(),
      readyAt: paused?.checkpoint == null ? null : clock.now(),
      captured: paused?.captured ?? capture(sandbox, this.#deps.processes.remaining(sandbox.id)),
    });
    using _held = this.#deps.keeping.hold(snapshot.id);
    await store.snapshots.insert(snapshot);
    if (isReady(snapshot)) {
      // Resumed and paused anew meanwhile, the files may have gone before this row could keep them.
      if (paused !== null && (await store.snapshots.find(null, paused.id)) !== null) return snapshot;
      await this.#deps.keeping.remove(snapshot);
      throw new PaddockError('conflict', 'the sandbox was resumed meanwhile; try again');
    }
    const making = this.#save(sandbox, snapshot, input.lap).finally(() => this.#making.delete(snapshot.id));
    this.#making.set(snapshot.id, making);
    return await making;
  }

  async #save(sandbox: Sandbox, snapshot: Snapshot, lap?: Lap): Promise<ReadySnapshot> {
    const { store, host, keeping, events, clock } = this.#deps;
    try {
      const checkpoint = await host.checkpoint(sandbox.id, { checkpointId: snapshot.id, hold: false, ...(lap === undefined ? {} : { lap }) }, AbortSignal.timeout(checkpointWithinMs));
      const finished = await store.snapshots.finish(snapshot.id, checkpoint, clock.now());
      if (finished === null || !isReady(finished)) throw new PaddockError('gone', 'the snapshot was deleted while it was being made');
      return finished;
    } catch (thrown) {
      const error = PaddockError.from(thrown);
      events.ofSandbox(sandbox, 'lifecycle', 'snapshot_failed', { code: error.code, message: error.message });
      keeping.removeInBackground(snapshot);
      throw error.code === 'internal' ? new PaddockError('unprocessable', `the snapshot could not be made; the sandbox runs on: ${error.message}`, {}, { cause: error }) : error;
    }
  }

  /** Newest first; also of a sandbox that has ended. */
  async ofSandbox(principal: Principal, ref: SandboxRef, query: Pick<SnapshotQuery, 'limit' | 'offset'>): Promise<SnapshotPage> {
    const sandbox = await this.#deps.store.sandboxes.find(principal.teamId, ref);
    if (sandbox === null) throw new PaddockError('not_found', 'there is no such sandbox; it may have ended long ago, or belong to another team');
    return this.list(principal, { ...query, sandboxId: sandbox.id });
  }

  async list(principal: Principal, query: Omit<SnapshotQuery, 'sources'>): Promise<SnapshotPage> {
    if (!Number.isInteger(query.limit) || query.limit < 1 || query.limit > 1000) throw new PaddockError('invalid_argument', `limit must be from 1 to 1000, not ${query.limit}`, { field: 'limit' });
    return this.#deps.store.snapshots.list(principal.teamId, { ...query, sources: shown });
  }

  async get(principal: Principal, id: SnapshotId): Promise<Snapshot> {
    const snapshot = await this.#deps.store.snapshots.find(principal.teamId, id);
    if (snapshot === null || !shown.includes(snapshot.source)) throw notFound();
    return snapshot;
  }

  async rename(principal: Principal, id: SnapshotId, name: string): Promise<Snapshot> {
    assertText('name', name, 64);
    await this.get(principal, id);
    const renamed = await this.#deps.store.snapshots.rename(id, name);
    if (renamed === null) throw notFound();
    return renamed;
  }

  /** False when there is none. Throws `conflict` while it is being made, or is what a paused sandbox goes on from. */
  async delete(principal: Principal, id: SnapshotId): Promise<boolean> {
    const snapshot = await this.#deps.store.snapshots.find(principal.teamId, id);
    if (snapshot === null || !shown.includes(snapshot.source)) return false;
    if (!isReady(snapshot)) throw new PaddockError('conflict', 'the snapshot is still being made; delete it afterwards');
    const removed = await this.#deps.keeping.remove(snapshot);
    if (removed) this.#deps.events.ofTeam(principal.teamId, 'snapshot_deleted', { snapshotId: id });
    return removed;
  }

  /**
   * Puts a sandbox back to a snapshot of its own, whatever state it is in, and leaves it running. Without an id: what it was paused with
   * last, else its newest. When it fails the sandbox is as it was.
   */
  async restoreInPlace(principal: Principal, ref: SandboxRef, id: SnapshotId | null, lap?: Lap): Promise<{ readonly sandbox: Sandbox; readonly snapshot: ReadySnapshot }> {
    const sandbox = await this.#deps.settledSandbox(principal, ref);
    const snapshot = id === null ? await this.#newest(sandbox) : await this.get(principal, id);
    if (snapshot === null || snapshot.sandboxId !== sandbox.id) throw notFound(id === null ? 'the sandbox has no snapshot to be restored from' : undefined);
    if (!isReady(snapshot)) throw new PaddockError('conflict', 'the snapshot is still being made; restore it afterwards');
    if (!['running', 'paused', 'killed'].includes(sandbox.state)) throw unusable(sandbox) ?? new PaddockError('conflict', `the sandbox is ${sandbox.state}; try again`);
    return { sandbox: await this.#deps.resuming.restore(sandbox, snapshot, lap), snapshot };
  }

  async settled(): Promise<void> {
    await Promise.allSettled(this.#making.values());
  }

  async #newest(sandbox: Sandbox): Promise<Snapshot | null> {
    const own = (await this.#deps.store.snapshots.all(sandbox.id)).filter(isReady);
    return own.findLast(({ source }) => source === 'pause') ?? own.findLast(({ source }) => source === 'manual') ?? null;
  }

  async #finished(snapshot: Snapshot): Promise<ReadySnapshot> {
    if (!isReady(snapshot)) await this.#making.get(snapshot.id);
    const now = isReady(snapshot) ? snapshot : await this.#deps.store.snapshots.find(null, snapshot.id);
    if (now === null || !isReady(now)) throw new PaddockError('conflict', 'a snapshot with this key could not be made; use another key');
    return now;
  }

  async #assertQuota(teamId: TeamId): Promise<void> {
    const { maxSnapshots, maxSnapshotsUnderWay, maxSnapshotBytes } = this.#deps.settings;
    const { count, unfinished, bytes } = await this.#deps.store.snapshots.usage(teamId);
    if (count >= maxSnapshots) throw new PaddockError('concurrency_limit', `there are ${count} snapshots, and the limit is ${maxSnapshots}; delete some`, { reason: 'too_many_snapshots' });
    if (unfinished >= maxSnapshotsUnderWay) {
      throw new PaddockError('concurrency_limit', `${unfinished} snapshots are being made, and the limit is ${maxSnapshotsUnderWay}; wait for them`, { reason: 'too_many_snapshots_in_flight', retryAfterSeconds: 2 });
    }
    if (maxSnapshotBytes > 0 && bytes >= maxSnapshotBytes) {
      throw new PaddockError('concurrency_limit', `the snapshots take ${toMib(bytes)} MiB, and the limit is ${toMib(maxSnapshotBytes)} MiB; delete some`, { reason: 'too_many_snapshots' });
    }
  }
}

function assertText(field: string, text: string | undefined, longest: number): void {
  if (text === undefined) return;
  if (text.length < 1 || text.length > longest || text.includes('\0')) throw new PaddockError('invalid_argument', `${field} must have 1 to ${longest} characters, and no NUL`, { field });
}

function toMib(bytes: number): number {
  return Math.ceil(bytes / 1_048_576);
}

function notFound(message = 'there is no such snapshot; it may have been deleted, or belong to another sandbox or team'): PaddockError {
  return new PaddockError('not_found', message, { reason: 'snapshot_not_found' });
}
