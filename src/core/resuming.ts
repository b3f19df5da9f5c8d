import type { Admission } from './admission.ts';
import type { Birth, Births } from './births.ts';
import type { Clock } from './clock.ts';
import { unusable } from './ended.ts';
import type { Endings } from './endings.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { Expiry } from './expiry.ts';
import type { GuestRef, Host, Lap, RestoreSpec } from './host.ts';
import type { SandboxId } from './ids.ts';
import type { Identities } from './identity.ts';
import { measured, type Measures } from './measures.ts';
import type { Pausing } from './pausing.ts';
import type { ProcessClock } from './process-clock.ts';
import type { Sandbox, SandboxState } from './sandbox.ts';
import { isReady, type ReadySnapshot } from './snapshot.ts';
import type { Arming } from './secrets/arming.ts';
import type { Equipment, SecretBindings } from './secrets/bindings.ts';
import type { SandboxPatch, Store } from './store.ts';
import type { Tokens } from './tokens.ts';
import type { VolumeAttachments } from './volume-attachments.ts';

export interface ResumingDeps {
  readonly measures: Measures | undefined;
  readonly store: Store;
  readonly host: Host;
  readonly clock: Clock;
  readonly processes: ProcessClock;
  readonly events: EventLog;
  readonly admission: Admission;
  readonly births: Births;
  readonly endings: Endings;
  readonly expiry: Expiry;
  readonly pausing: Pausing;
  readonly identities: Identities;
  readonly tokens: Tokens;
  readonly bindings: SecretBindings;
  readonly arming: Arming;
  readonly volumes: VolumeAttachments;
}

/** Brings sandboxes back from what was saved of them. Until the row says running, the saved state is what counts, and stays. */
export class Resuming {
  readonly #deps: ResumingDeps;
  readonly #underWay = new Map<SandboxId, Promise<Sandbox>>();

  constructor(deps: ResumingDeps) {
    this.#deps = deps;
  }

  /** From its pause. Throws `conflict` when it is not paused, or somebody else was first. */
  async resume(sandbox: Sandbox, lap?: Lap): Promise<Sandbox> {
    // Its guest may still be on its way into the store of those kept in memory.
    await this.#deps.pausing.settled(sandbox.id);
    const snapshot = await this.#snapshotOf(sandbox);
    return this.#measured('resume', sandbox, lap, (told) => this.#claim(sandbox, ['paused'], snapshot, {}, told));
  }

  /** The resume under way, if there is one. */
  underWay(id: SandboxId): Promise<Sandbox> | undefined {
    return this.#underWay.get(id);
  }

  /** In place, from wherever the sandbox rests: what it was is given up once the restored one runs, and not before. */
  async restore(sandbox: Sandbox, snapshot: ReadySnapshot, lap?: Lap): Promise<Sandbox> {
    await this.#deps.pausing.settled(sandbox.id);
    const { envs, template, limits, defaultUser } = snapshot.captured;
    // The rules stay those of today: an old snapshot must not open what was closed since.
    return this.#measured('restore', sandbox, lap, (told) => this.#claim(sandbox, [sandbox.state], snapshot, { envs, template, limits, defaultUser }, told));
  }

  #measured(work: 'resume' | 'restore', { wire }: Sandbox, lap: Lap | undefined, run: (lap: Lap) => Promise<Sandbox>): Promise<Sandbox> {
    return measured(this.#deps.measures, work, wire, lap, run);
  }

  async allSettled(): Promise<void> {
    await Promise.allSettled(this.#underWay.values());
  }

  async #claim(before: Sandbox, from: readonly SandboxState[], snapshot: ReadySnapshot, patch: SandboxPatch, lap?: Lap): Promise<Sandbox> {
    const { admission, store } = this.#deps;
    const { id } = before;
    const counted = before.state === 'running';
    if (!counted) admission.enter(id);
    let claimed: Sandbox | null = null;
    try {
      claimed = await store.sandboxes.transition(id, from, 'resuming', { snapshotId: snapshot.id, end: null });
    } finally {
      // Unless somebody else has claimed it, and counts it now.
      if (claimed === null && !counted && !this.#underWay.has(id)) admission.leave(id);
    }
    if (claimed === null) {
      const row = await store.sandboxes.find(null, { id });
      throw (row === null ? null : unusable(row)) ?? new PaddockError('conflict', `the sandbox is ${row?.state ?? 'gone'} already`);
    }
    const work = this.#bringBack(before, claimed, snapshot, patch, lap).finally(() => this.#underWay.delete(id));
    this.#underWay.set(id, work);
    return work;
  }

  async #bringBack(before: Sandbox, claimed: Sandbox, snapshot: ReadySnapshot, patch: SandboxPatch, lap?: Lap): Promise<Sandbox> {
    const { host, births, clock, events, expiry, bindings, arming } = this.#deps;
    const begun = clock.now();
    const birth = births.begin(claimed.id);
    try {
      const becoming = { ...claimed, ...patch };
      await this.#deps.volumes.assertPresent(claimed, snapshot.captured.policy.volumes);
      const equipment = await bindings.of(becoming);
      const guest = await arming.during(becoming.id, equipment.secretIds, () => host.restore(this.specOf(becoming, equipment, snapshot, true, lap), birth.signal));
      birth.provisioned();
      birth.signal.throwIfAborted();
      // Before the row: a restart in between finds them, and they belong to no running sandbox then.
      await this.#deps.processes.restart(becoming, snapshot.captured.processes, before.state === 'paused');
      const running = await this.#run(becoming, guest, patch, birth);
      lap?.('store');
      this.#deps.volumes.began(running);
      expiry.watch(running);
      events.ofSandbox(running, 'lifecycle', before.state === 'paused' ? 'resumed' : 'restored', { snapshotId: snapshot.id, durationMs: clock.now() - begun });
      return running;
    } catch (thrown) {
      birth.provisioned();
      const error = PaddockError.from(birth.signal.aborted ? birth.signal.reason : thrown);
      await this.#back(before, claimed);
      events.ofSandbox(claimed, 'lifecycle', 'resume_failed', { code: error.code, message: error.message });
      throw error;
    } finally {
      birth.over();
    }
  }

  /** What a host needs to bring a snapshot back as this sandbox. */
  specOf(sandbox: Sandbox, equipment: Equipment, snapshot: ReadySnapshot, sameSandbox: boolean, lap?: Lap): RestoreSpec {
    return {
      checkpoint: snapshot.checkpoint,
      savedToken: this.#deps.tokens.agent({ id: snapshot.sandboxId, generation: snapshot.captured.generation }),
      sameSandbox,
      limits: sandbox.limits,
      identity: this.#deps.identities.of(sandbox, equipment),
      teamId: sandbox.teamId,
      network: sandbox.policy.network,
      inspection: equipment.inspection,
      volumes: snapshot.captured.policy.volumes ?? [],
      ...(lap === undefined ? {} : { lap }),
    };
  }

  async #run(sandbox: Sandbox, guest: GuestRef, patch: SandboxPatch, birth: Birth): Promise<Sandbox> {
    const { store, clock } = this.#deps;
    for (let { timeoutSeconds } = sandbox; ; ) {
      const now = clock.now();
      const running = await store.sandboxes.transition(
        sandbox.id,
        ['resuming'],
        'running',
        { ...patch, guest, periodStartedAt: now, endAt: timeoutSeconds === 0 ? null : now + timeoutSeconds * 1000, pausedAt: null, pauseCause: null, autoDeleteAt: null, snapshotId: null },
        { timeoutSeconds },
      );
      birth.signal.throwIfAborted();
      if (running !== null) return running;
      const row = await store.sandboxes.find(null, { id: sandbox.id });
      if (row?.state !== 'resuming') throw (row === null ? null : unusable(row)) ?? new PaddockError('conflict', 'the sandbox changed while it was resumed; try again');
      ({ timeoutSeconds } = row); // changed while it was resumed
    }
  }

  /** To where it rested before, unless its end was decided meanwhile. */
  async #back(before: Sandbox, claimed: Sandbox): Promise<void> {
    const { endings, store, expiry, admission } = this.#deps;
    const { id } = claimed;
    const states: SandboxState[] = ['resuming', 'running'];
    const rested = { snapshotId: before.snapshotId, guest: before.guest, end: before.end, pausedAt: before.pausedAt, pauseCause: before.pauseCause, autoDeleteAt: before.autoDeleteAt };
    try {
      if (before.state === 'running') {
        const running = this.#lives(id) ? await store.sandboxes.transition(id, ['resuming'], 'running', rested) : null;
        if (running !== null) return expiry.watch(running);
        return await endings.bury(before, { reason: 'runtime_crashed', detail: 'It ended while it was being restored.' });
      }
      await endings.destroyGuest(id);
      const back = await store.sandboxes.transition(id, states, before.state, rested);
      if (back === null) return; // its teardown does the rest
      admission.leave(id);
      expiry.watch(back);
    } catch {
      // The row says resuming: the next start finds out what there is.
    }
  }

  #lives(id: SandboxId): boolean {
    try {
      this.#deps.host.guest(id);
      return true;
    } catch {
      return false;
    }
  }

  async #snapshotOf(sandbox: Sandbox): Promise<ReadySnapshot> {
    if (sandbox.state !== 'paused' || sandbox.snapshotId === null) throw unusableForResume(sandbox);
    const snapshot = await this.#deps.store.snapshots.find(null, sandbox.snapshotId);
    if (snapshot === null || !isReady(snapshot)) {
      throw new PaddockError('not_found', 'the snapshot that the sandbox was paused with is gone from this server; restore another one, or kill the sandbox', { reason: 'snapshot_missing' });
    }
    return snapshot;
  }
}

function unusableForResume(sandbox: Sandbox): PaddockError {
  if (sandbox.state === 'running') return new PaddockError('conflict', 'the sandbox is running; only a paused one can be resumed');
  return unusable(sandbox) ?? new PaddockError('conflict', `the sandbox is ${sandbox.state}; only a paused one can be resumed`);
}
