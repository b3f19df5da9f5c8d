import type { Admission } from './admission.ts';
import type { Clock } from './clock.ts';
import { assertEnvs, assertLifecycle, assertMetadata, assertTimeout, type SecretsInput } from './create-input.ts';
import type { Creation, Newborn } from './creation.ts';
import { unusable } from './ended.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { Host, Lap } from './host.ts';
import { newSandboxId, newShortId, type SandboxRef, type SnapshotId } from './ids.ts';
import type { Born } from './idempotency.ts';
import type { Keeping } from './keeping.ts';
import { measured, type Measures } from './measures.ts';
import type { ProcessClock } from './process-clock.ts';
import { assertEnforceable, enforcedPolicy, withVolumes, type PolicyRequest } from './policy.ts';
import type { Principal } from './principal.ts';
import type { Resuming } from './resuming.ts';
import type { SecretBindings } from './secrets/bindings.ts';
import { unborn, type Declared, type EnforcedPolicy, type Lifecycle, type Sandbox, type WireName } from './sandbox.ts';
import type { CoreSettings } from './settings.ts';
import { isReady, type ReadySnapshot } from './snapshot.ts';
import type { Snapshots } from './snapshots.ts';
import type { VolumeAttachments } from './volume-attachments.ts';

/** What a sandbox made from another one's state may have of its own; the rest is its source's. */
export interface CopyInput {
  readonly timeoutSeconds?: number;
  readonly metadata?: Readonly<Record<string, string>>;
  /** Over those of the source, for processes started from now on. */
  readonly envs?: Readonly<Record<string, string>>;
  readonly lifecycle?: Lifecycle;
  readonly lap?: Lap;
}

/** A create from a snapshot may also choose its rules, as any create may. */
export interface CreateFromSnapshot extends CopyInput {
  readonly wire: WireName;
  readonly name?: string;
  readonly policy?: PolicyRequest;
  readonly declared?: Declared;
  readonly born?: Born | undefined;
  /** Beside those of the snapshot's sandbox; the same variable gets this one. */
  readonly secrets?: SecretsInput;
}

type Copy = Omit<CreateFromSnapshot, 'policy'> & { readonly policy?: EnforcedPolicy };

interface ForksDeps {
  readonly measures: Measures | undefined;
  readonly clock: Clock;
  readonly processes: ProcessClock;
  readonly host: Host;
  readonly events: EventLog;
  readonly settings: CoreSettings;
  readonly admission: Admission;
  readonly creation: Creation;
  readonly keeping: Keeping;
  readonly resuming: Resuming;
  readonly bindings: SecretBindings;
  readonly snapshots: Snapshots;
  readonly volumes: VolumeAttachments;
  readonly settledSandbox: (principal: Principal, ref: SandboxRef) => Promise<Sandbox>;
  readonly kill: (sandbox: Sandbox) => Promise<unknown>;
}

/** New sandboxes that go on from the state of another: each with names, tokens, address and entropy of its own. */
export class Forks {
  readonly #deps: ForksDeps;

  constructor(deps: ForksDeps) {
    this.#deps = deps;
  }

  /**
   * So many new sandboxes from a running or paused one: all of them or none. A running source stands still while it is saved, and loses its
   * connections to the outside. Rules are the source's, and cannot be widened here.
   */
  async fork(principal: Principal, ref: SandboxRef, count: number, input: CopyInput, signal: AbortSignal): Promise<readonly Sandbox[]> {
    const { settings, measures } = this.#deps;
    if (!Number.isInteger(count) || count < 1 || count > settings.maxForks) {
      throw new PaddockError('invalid_argument', `count must be from 1 to ${settings.maxForks}, not ${count}`, { field: 'count' });
    }
    this.#assert(input);
    const source = await this.#deps.settledSandbox(principal, ref);
    const reason = unusable(source);
    if (reason !== null && source.state !== 'paused') throw reason;
    return measured(measures, 'fork', source.wire, input.lap, (lap) => this.#fork(principal, source, count, { ...input, lap }, signal));
  }

  async #fork(principal: Principal, source: Sandbox, count: number, input: CopyInput, signal: AbortSignal): Promise<readonly Sandbox[]> {
    const { snapshots, keeping, events } = this.#deps;
    await this.#assertRoom(source, count);
    const snapshot = await snapshots.take(source, 'fork', input.lap === undefined ? {} : { lap: input.lap });
    using _held = keeping.hold(snapshot.id);
    input.lap?.('saved');
    try {
      await this.#deps.host.assertRoom(snapshot.checkpoint.memoryBytes * count);
      const { lap: _lap, ...shared } = input; // stages of many at once say nothing
      const forked = await this.#all(count, () => this.#copy(principal, snapshot, { ...shared, wire: source.wire, policy: source.policy, declared: source.declared }, null, signal));
      input.lap?.('restore');
      events.ofSandbox(source, 'lifecycle', 'forked', { count, pausedForMs: snapshot.checkpoint.pausedForMs });
      return forked;
    } finally {
      keeping.removeInBackground(snapshot);
    }
  }

  /** A new sandbox from a snapshot, which is not used up. */
  async createFrom(principal: Principal, id: SnapshotId, input: CreateFromSnapshot, signal: AbortSignal): Promise<Sandbox> {
    this.#assert(input);
    const { policy, ...rest } = input;
    if (policy !== undefined) assertEnforceable(policy);
    const snapshot = await this.#deps.snapshots.get(principal, id);
    if (!isReady(snapshot)) throw new PaddockError('conflict', 'the snapshot is still being made; try again', { reason: 'snapshot_not_ready', retryAfterSeconds: 1 });
    await this.#deps.host.assertRoom(snapshot.checkpoint.memoryBytes);
    return measured(this.#deps.measures, 'create_from_snapshot', input.wire, input.lap, (lap) => this.#copy(principal, snapshot, { ...rest, lap, ...(policy === undefined ? {} : { policy: enforcedPolicy(policy) }) }, snapshot.id, signal));
  }

  /** Refused before anything is saved, as far as it can be told by then. */
  async #assertRoom(source: Sandbox, count: number): Promise<void> {
    this.#deps.admission.assertFree(count);
    if (source.state !== 'running') return;
    const { memoryBytes } = await this.#deps.host.usage(source.id);
    await this.#deps.host.assertRoom(memoryBytes * count);
  }

  #assert(input: CopyInput): void {
    const { settings } = this.#deps;
    if (input.timeoutSeconds !== undefined) assertTimeout('timeout', input.timeoutSeconds, settings);
    if (input.metadata !== undefined) assertMetadata(input.metadata, settings);
    if (input.lifecycle !== undefined) assertLifecycle(input.lifecycle, settings);
  }

  async #copy(principal: Principal, snapshot: ReadySnapshot, input: Copy, sourceId: SnapshotId | null, signal: AbortSignal): Promise<Sandbox> {
    const { creation, resuming, host, clock, settings, bindings } = this.#deps;
    const { captured } = snapshot;
    const wanted = await bindings.wanted(principal, input.secrets?.bindings ?? [], input.envs ?? {}, input.secrets?.field ?? 'secrets');
    const lineage = { sandboxId: snapshot.sandboxId, authorityId: captured.authorityId, savedAt: snapshot.createdAt, without: new Set(Object.keys(input.envs ?? {})) };
    const envs = { ...captured.envs, ...input.envs };
    assertEnvs('envs', envs, settings.maxEnvBytes);
    await this.#deps.volumes.assertPresent(principal, captured.policy.volumes);
    const described = async (): Promise<Newborn> => {
      const id = newSandboxId();
      const endowment = await bindings.endow(id, principal.teamId, wanted, lineage);
      const sandbox: Sandbox = Object.freeze({
        ...unborn,
        id,
        shortId: newShortId(),
        teamId: principal.teamId,
        wire: input.wire,
        name: input.name ?? '',
        template: captured.template,
        limits: captured.limits,
        defaultUser: captured.defaultUser,
        metadata: input.metadata ?? {},
        envs,
        lifecycle: input.lifecycle ?? captured.lifecycle,
        declared: input.declared ?? captured.declared,
        // The saved guest has its volumes open: they are what they were, whatever else is new.
        policy: withVolumes(input.policy ?? captured.policy, captured.policy.volumes ?? []),
        timeoutSeconds: input.timeoutSeconds ?? captured.timeoutSeconds,
        createdAt: clock.now(),
        sourceSnapshotId: sourceId,
        authorityId: endowment.authority.id,
      });
      return { sandbox, endowment };
    };
    const sandbox = await creation.bear(described, async (born, equipment, aborted) => {
      await input.born?.(born.id);
      return host.restore(resuming.specOf(born, equipment, snapshot, false, input.lap), aborted);
    }, signal, input.lap);
    try {
      await this.#deps.processes.restart(sandbox, captured.processes, false);
    } catch (error) {
      await this.#deps.kill(sandbox); // its processes would run for ever
      throw error;
    }
    return sandbox;
  }

  async #all(count: number, make: () => Promise<Sandbox>): Promise<readonly Sandbox[]> {
    const made = await Promise.allSettled(Array.from({ length: count }, make));
    const sandboxes = made.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    const failed = made.find((each) => each.status === 'rejected');
    if (failed === undefined) return sandboxes;
    await Promise.allSettled(sandboxes.map((sandbox) => this.#deps.kill(sandbox)));
    throw PaddockError.from(failed.reason);
  }
}
