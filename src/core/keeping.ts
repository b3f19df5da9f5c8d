import type { Deadlines } from './deadlines.ts';
import type { Clock } from './clock.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { Host } from './host.ts';
import type { SandboxId, SnapshotId } from './ids.ts';
import { crashes, type Sandbox } from './sandbox.ts';
import { isReady, type Snapshot } from './snapshot.ts';
import type { Store } from './store.ts';

const retryAfterMs = 30_000;
const olderGoAfterMs = 3000;

/**
 * Which snapshots and checkpoints stay. Rows go first, files second: files without a row are found at the next sweep, a row
 * without files would promise what is not there.
 */
export class Keeping {
  readonly #store: Store;
  readonly #host: Host;
  readonly #clock: Clock;
  readonly #events: EventLog;
  readonly #deadlines: Deadlines;
  /** Tells of checkpoints that are somebody else's. */
  readonly #spared: () => Promise<(checkpointId: string) => boolean>;
  readonly #held = new Set<string>();

  constructor(deps: { readonly store: Store; readonly host: Host; readonly clock: Clock; readonly events: EventLog; readonly deadlines: Deadlines; readonly spared: () => Promise<(checkpointId: string) => boolean> }) {
    this.#store = deps.store;
    this.#host = deps.host;
    this.#clock = deps.clock;
    this.#events = deps.events;
    this.#deadlines = deps.deadlines;
    this.#spared = deps.spared;
  }

  /** Keeps a snapshot from being swept while it is at work. */
  hold(id: SnapshotId): Disposable {
    this.#held.add(id);
    return { [Symbol.dispose]: () => void this.#held.delete(id) };
  }

  /** Removes the row, and the files when no other snapshot names them; false when there was none. Throws `conflict` when a sandbox needs it. */
  async remove(snapshot: Snapshot): Promise<boolean> {
    if (!(await this.#store.snapshots.remove(snapshot.id))) return false;
    await this.dropFiles(snapshot.checkpoint?.id ?? snapshot.id);
    return true;
  }

  /** Removes the files of a checkpoint that no snapshot names. */
  async dropFiles(checkpointId: string): Promise<void> {
    if (!(await this.#store.snapshots.names(checkpointId))) await this.#host.removeCheckpoint(checkpointId);
  }

  /** `remove` with nobody waiting; what fails is left to the next sweep. */
  removeInBackground(snapshot: Snapshot): void {
    this.remove(snapshot).catch((error: unknown) =>
      this.#events.ofTeam(snapshot.teamId, 'snapshot_removal_failed', { snapshotId: snapshot.id, message: PaddockError.from(error).message }),
    );
  }

  /** Of what a sandbox was paused with, only the newest is kept. The others go a little later: removing gigabytes holds up whoever resumes at once. */
  dropOlderPauses(sandboxId: SandboxId): void {
    this.#deadlines.arm(`older pauses ${sandboxId}`, this.#clock.now() + olderGoAfterMs, () => {
      this.#dropOlder(sandboxId).catch(() => undefined); // the next sweep does it
    });
  }

  async #dropOlder(sandboxId: SandboxId): Promise<void> {
    const pauses = (await this.#store.snapshots.all(sandboxId)).filter((snapshot) => snapshot.source === 'pause' && isReady(snapshot));
    for (const snapshot of pauses.slice(0, -1)) this.removeInBackground(snapshot);
  }

  /** After an end that was asked for nothing goes on from where it paused; after a crash its owner may want to. */
  ended(sandbox: Sandbox): void {
    if (sandbox.end !== null && crashes.includes(sandbox.end.reason)) return;
    const drop = async (): Promise<void> => {
      for (const snapshot of await this.#store.snapshots.all(sandbox.id)) if (snapshot.source === 'pause') await this.remove(snapshot);
    };
    drop().catch(() => this.#deadlines.arm(`snapshots ${sandbox.id}`, this.#clock.now() + retryAfterMs, () => this.ended(sandbox)));
  }

  /** Removes what a crash left, and what belongs to sandboxes that are no more. */
  async sweep(): Promise<void> {
    const { sandboxes, snapshots } = this.#store;
    const newestPause = new Map<SandboxId, SnapshotId>();
    const all = await snapshots.all();
    for (const snapshot of all) if (snapshot.source === 'pause' && isReady(snapshot)) newestPause.set(snapshot.sandboxId, snapshot.id);
    for (const snapshot of all) {
      if (this.#held.has(snapshot.id)) continue;
      if (snapshot.source === 'manual' ? isReady(snapshot) : snapshot.source === 'pause' && newestPause.get(snapshot.sandboxId) === snapshot.id && (await this.#isWanted(await sandboxes.find(null, { id: snapshot.sandboxId })))) continue;
      await this.remove(snapshot).catch(() => undefined); // needed by a sandbox after all
    }
    const named = new Set((await snapshots.all()).map((snapshot) => snapshot.checkpoint?.id ?? snapshot.id));
    const there = await this.#host.checkpoints();
    const isSpared = await this.#spared();
    for (const { id } of there) if (!named.has(id) && !this.#held.has(id) && !isSpared(id)) await this.#host.removeCheckpoint(id);
  }

  async #isWanted(sandbox: Sandbox | null): Promise<boolean> {
    return sandbox !== null && (sandbox.end === null || crashes.includes(sandbox.end.reason));
  }
}
