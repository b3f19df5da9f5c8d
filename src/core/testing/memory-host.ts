import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../errors.ts';
import type { CheckpointOptions, CheckpointRef, Guest, GuestDeath, GuestIdentity, GuestRef, GuestSpec, GuestUsage, Host, KnownGuest, Recovery, RestoreSpec } from '../host.ts';
import type { SandboxId } from '../ids.ts';
import type { ConnectionEvent } from '../network/egress.ts';
import type { Inspection, InspectionEvent } from '../network/inspection.ts';
import type { NetworkPolicy } from '../network/rules.ts';
import type { Limits } from '../template.ts';
import { MemoryGuest } from './memory-guest.ts';

/** A machine made of memory, for tests of the core. It checks what a real one relies on, and outlives the core that uses it. */
export class MemoryHost implements Host {
  readonly guests = new Map<SandboxId, MemoryGuest>();
  readonly specs: GuestSpec[] = [];
  /** What is in force. */
  readonly networks = new Map<SandboxId, NetworkPolicy>();
  readonly inspections = new Map<SandboxId, Inspection | null>();
  /** Who each guest was told it is, last. */
  readonly identities = new Map<SandboxId, GuestIdentity>();
  /** Called while a guest is made and ended; may wait or throw. */
  onProvision: (spec: GuestSpec, signal: AbortSignal) => Promise<void> = async () => undefined;
  onDestroy: (id: SandboxId) => Promise<void> = async () => undefined;
  onSetNetwork: (id: SandboxId, policy: NetworkPolicy) => Promise<void> = async () => undefined;
  onSetInspection: (id: SandboxId, inspection: Inspection | null) => Promise<void> = async () => undefined;
  /** What is saved: the guest as it was, and the token it had. */
  readonly saved = new Map<string, { readonly ref: CheckpointRef; readonly guest: MemoryGuest; readonly token: string }>();
  readonly restored: RestoreSpec[] = [];
  /** Guests that stand still after their checkpoint. */
  readonly held = new Set<SandboxId>();
  /** Called before anything is saved, after it is durable, and before a guest is restored; may wait or throw. */
  onCheckpoint: (id: SandboxId) => Promise<void> = async () => undefined;
  onSaved: (id: SandboxId) => Promise<void> = async () => undefined;
  onRestore: (spec: RestoreSpec, signal: AbortSignal) => Promise<void> = async () => undefined;
  room = Infinity;
  readonly #tokens = new Map<SandboxId, string>();
  readonly #dead = new Map<SandboxId, GuestDeath>();
  readonly #busy = new Set<SandboxId>();
  #listener: ((id: SandboxId, death: GuestDeath) => void) | null = null;
  #connections: ((events: readonly ConnectionEvent[]) => Promise<void>) | null = null;
  #inspections: ((events: readonly InspectionEvent[]) => Promise<void>) | null = null;
  #slots = 0;

  async provision(spec: GuestSpec, signal: AbortSignal): Promise<GuestRef> {
    const id = spec.identity.sandboxId;
    this.#exclusive(id);
    try {
      this.specs.push(spec);
      this.networks.set(id, spec.network);
      this.inspections.set(id, spec.inspection ?? null);
      this.identities.set(id, spec.identity);
      await this.onProvision(spec, signal);
      signal.throwIfAborted();
      this.guests.set(id, new MemoryGuest());
      this.#tokens.set(id, spec.identity.agentToken);
      return this.#ref(id);
    } finally {
      this.#busy.delete(id);
    }
  }

  async checkpoint(id: SandboxId, { checkpointId, hold }: CheckpointOptions, signal: AbortSignal): Promise<CheckpointRef> {
    const guest = this.memory(id);
    if (this.held.has(id)) throw new Error(`${id} is held already`);
    await this.onCheckpoint(id);
    signal.throwIfAborted();
    if (this.guests.get(id) !== guest) throw new PaddockError('gone', 'the guest died while it was saved');
    const ref: CheckpointRef = {
      id: checkpointId, runtime: 'gvisor', build: 'b'.repeat(64), agentProtocol: 2, agent: 'a'.repeat(64), template: 'd'.repeat(64), bytes: 1 << 20, memoryBytes: 128 << 20, pausedForMs: 1,
    };
    this.saved.set(checkpointId, { ref, guest: guest.copy(), token: this.#tokens.get(id) ?? '' });
    if (hold) this.held.add(id);
    await this.onSaved(id);
    return ref;
  }

  async proceed(id: SandboxId): Promise<void> {
    this.memory(id);
    this.held.delete(id);
  }

  async retire(id: SandboxId, checkpointId: string, error: PaddockError): Promise<void> {
    if (!this.saved.has(checkpointId)) throw new Error(`nothing was saved of ${id}`);
    if (!this.held.delete(id)) throw new Error(`${id} is not held`);
    this.guests.get(id)?.die(error);
    this.guests.delete(id);
    this.networks.delete(id);
  }

  async restore(spec: RestoreSpec, signal: AbortSignal): Promise<GuestRef> {
    const id = spec.identity.sandboxId;
    this.#exclusive(id);
    try {
      const saved = this.saved.get(spec.checkpoint.id);
      if (saved === undefined) throw new PaddockError('not_found', 'the checkpoint is gone');
      if (saved.token !== spec.savedToken) throw new Error('the guest does not know this token');
      this.restored.push(spec);
      await this.onRestore(spec, signal);
      signal.throwIfAborted();
      this.guests.get(id)?.die();
      this.guests.set(id, saved.guest.copy());
      this.networks.set(id, spec.network);
      this.inspections.set(id, spec.inspection ?? null);
      this.identities.set(id, spec.identity);
      this.#tokens.set(id, spec.identity.agentToken);
      return this.#ref(id);
    } finally {
      this.#busy.delete(id);
    }
  }

  async removeCheckpoint(checkpointId: string): Promise<void> {
    this.saved.delete(checkpointId);
  }

  async checkpoints(): Promise<readonly CheckpointRef[]> {
    return [...this.saved.values()].map(({ ref }) => ref);
  }

  async assertRoom(memoryBytes: number): Promise<void> {
    if (memoryBytes > this.room) throw new PaddockError('no_capacity', 'this machine has no room for that');
  }

  #ref(id: SandboxId): GuestRef {
    return {
      runtime: 'gvisor',
      build: 'b'.repeat(64),
      container: `c-${id}`,
      slot: ++this.#slots,
      address: '10.0.0.2',
      agentPort: 49_983,
      agentProtocol: 2,
      pid: 4242,
      pidStart: '1',
      bootId: 'boot',
    };
  }

  async recover(known: ReadonlyMap<SandboxId, KnownGuest>): Promise<ReadonlyMap<SandboxId, Recovery>> {
    const found = new Map<SandboxId, Recovery>();
    for (const id of known.keys()) {
      const death = this.#dead.get(id) ?? { reason: 'host_rebooted' as const, detail: 'the machine was rebooted' };
      found.set(id, this.guests.has(id) ? { alive: true } : { alive: false, death });
    }
    for (const id of this.guests.keys()) if (!known.has(id)) this.guests.delete(id);
    this.held.clear();
    this.networks.clear();
    this.inspections.clear();
    for (const [id, { network, inspection }] of known) {
      if (!this.guests.has(id)) continue;
      this.networks.set(id, network);
      this.inspections.set(id, inspection ?? null);
    }
    return found;
  }

  guest(id: SandboxId): Guest {
    return this.memory(id);
  }

  memory(id: SandboxId): MemoryGuest {
    const guest = this.guests.get(id);
    if (guest === undefined) throw new PaddockError('gone', 'the sandbox has no guest');
    return guest;
  }

  async destroy(id: SandboxId): Promise<void> {
    this.#exclusive(id);
    try {
      await this.onDestroy(id);
      this.guests.get(id)?.die();
      this.guests.delete(id);
      this.held.delete(id);
      this.networks.delete(id);
    } finally {
      this.#busy.delete(id);
    }
  }

  async usage(id: SandboxId): Promise<GuestUsage> {
    this.memory(id);
    return { at: Date.now(), cpuPercent: 12.5, memoryBytes: 128 << 20, diskBytes: 50 << 20 };
  }

  async setNetwork(id: SandboxId, policy: NetworkPolicy): Promise<void> {
    this.memory(id);
    await this.onSetNetwork(id, policy);
    this.networks.set(id, policy);
  }

  async setInspection(id: SandboxId, inspection: Inspection | null): Promise<void> {
    this.memory(id);
    await this.onSetInspection(id, inspection);
    this.inspections.set(id, inspection);
  }

  async reidentify(identity: GuestIdentity, _limits: Limits, signal: AbortSignal): Promise<void> {
    this.memory(identity.sandboxId);
    signal.throwIfAborted();
    this.identities.set(identity.sandboxId, identity);
    this.#tokens.set(identity.sandboxId, identity.agentToken);
  }

  onDeath(listener: (id: SandboxId, death: GuestDeath) => void): void {
    this.#listener = listener;
  }

  onConnections(listener: (events: readonly ConnectionEvent[]) => Promise<void>): void {
    this.#connections = listener;
  }

  onInspections(listener: (events: readonly InspectionEvent[]) => Promise<void>): void {
    this.#inspections = listener;
  }

  /** Requests of guests were looked into; rejects when the core does not take it. */
  async inspected(...events: readonly InspectionEvent[]): Promise<void> {
    await this.#inspections?.(events);
  }

  /** Guests have connected somewhere; rejects when the core does not take it. */
  async connected(...events: readonly ConnectionEvent[]): Promise<void> {
    await this.#connections?.(events);
  }

  /** The guest dies by itself; the core is told a moment later. */
  kill(id: SandboxId, death: GuestDeath): void {
    const guest = this.guests.get(id);
    if (guest === undefined) return;
    this.guests.delete(id);
    this.#dead.set(id, death);
    guest.die();
    const listener = this.#listener;
    void sleep(1).then(() => listener?.(id, death));
  }

  /** The machine as one life of the server sees it: `cut` ends that life, and what it still does reaches nothing. */
  session(): Host & { cut(): void } {
    let alive = true;
    const reach = async <T>(call: () => Promise<T>): Promise<T> => {
      if (!alive) throw new PaddockError('internal', 'this server has ended');
      return call();
    };
    return {
      provision: (spec, signal) => reach(() => this.provision(spec, signal)),
      recover: (known) => reach(() => this.recover(known)),
      guest: (id) => this.guest(id),
      destroy: (id) => reach(() => this.destroy(id)),
      checkpoint: (id, options, signal) => reach(() => this.checkpoint(id, options, signal)),
      proceed: (id) => reach(() => this.proceed(id)),
      retire: (id, checkpointId, error) => reach(() => this.retire(id, checkpointId, error)),
      restore: (spec, signal) => reach(() => this.restore(spec, signal)),
      removeCheckpoint: (checkpointId) => reach(() => this.removeCheckpoint(checkpointId)),
      checkpoints: () => reach(() => this.checkpoints()),
      assertRoom: (bytes) => reach(() => this.assertRoom(bytes)),
      setNetwork: (id, policy) => reach(() => this.setNetwork(id, policy)),
      setInspection: (id, inspection) => reach(() => this.setInspection(id, inspection)),
      reidentify: (identity, limits, signal) => reach(() => this.reidentify(identity, limits, signal)),
      usage: (id) => reach(() => this.usage(id)),
      onConnections: (listener) => this.onConnections(listener),
      onInspections: (listener) => this.onInspections(listener),
      onDeath: (listener) => this.onDeath(listener),
      cut: () => {
        alive = false;
        this.#listener = null;
        this.#connections = null;
        this.#inspections = null;
        this.#busy.clear();
      },
    };
  }

  /** A host cannot be asked to make and to take away the same guest at once. */
  #exclusive(id: SandboxId): void {
    if (this.#busy.has(id)) throw new Error(`two calls at once for ${id}`);
    this.#busy.add(id);
  }
}
