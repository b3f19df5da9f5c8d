import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../errors.ts';
import type { Guest, GuestDeath, GuestRef, GuestSpec, GuestUsage, Host, KnownGuest, Recovery } from '../host.ts';
import type { SandboxId } from '../ids.ts';
import type { ConnectionEvent } from '../network/egress.ts';
import type { NetworkPolicy } from '../network/rules.ts';
import { MemoryGuest } from './memory-guest.ts';

/** A machine made of memory, for tests of the core. It checks what a real one relies on, and outlives the core that uses it. */
export class MemoryHost implements Host {
  readonly guests = new Map<SandboxId, MemoryGuest>();
  readonly specs: GuestSpec[] = [];
  /** What is in force. */
  readonly networks = new Map<SandboxId, NetworkPolicy>();
  /** Called while a guest is made and ended; may wait or throw. */
  onProvision: (spec: GuestSpec, signal: AbortSignal) => Promise<void> = async () => undefined;
  onDestroy: (id: SandboxId) => Promise<void> = async () => undefined;
  onSetNetwork: (id: SandboxId, policy: NetworkPolicy) => Promise<void> = async () => undefined;
  readonly #dead = new Map<SandboxId, GuestDeath>();
  readonly #busy = new Set<SandboxId>();
  #listener: ((id: SandboxId, death: GuestDeath) => void) | null = null;
  #connections: ((events: readonly ConnectionEvent[]) => Promise<void>) | null = null;
  #slots = 0;

  async provision(spec: GuestSpec, signal: AbortSignal): Promise<GuestRef> {
    const id = spec.identity.sandboxId;
    this.#exclusive(id);
    try {
      this.specs.push(spec);
      this.networks.set(id, spec.network);
      await this.onProvision(spec, signal);
      signal.throwIfAborted();
      this.guests.set(id, new MemoryGuest());
      return {
        runtime: 'gvisor',
        build: 'b'.repeat(64),
        container: `c-${id}`,
        slot: ++this.#slots,
        address: '10.0.0.2',
        agentPort: 49_983,
        agentProtocol: 1,
        pid: 4242,
        pidStart: '1',
        bootId: 'boot',
      };
    } finally {
      this.#busy.delete(id);
    }
  }

  async recover(known: ReadonlyMap<SandboxId, KnownGuest>): Promise<ReadonlyMap<SandboxId, Recovery>> {
    const found = new Map<SandboxId, Recovery>();
    for (const id of known.keys()) {
      const death = this.#dead.get(id) ?? { reason: 'host_rebooted' as const, detail: 'the machine was rebooted' };
      found.set(id, this.guests.has(id) ? { alive: true } : { alive: false, death });
    }
    for (const id of this.guests.keys()) if (!known.has(id)) this.guests.delete(id);
    this.networks.clear();
    for (const [id, { network }] of known) if (this.guests.has(id)) this.networks.set(id, network);
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

  onDeath(listener: (id: SandboxId, death: GuestDeath) => void): void {
    this.#listener = listener;
  }

  onConnections(listener: (events: readonly ConnectionEvent[]) => Promise<void>): void {
    this.#connections = listener;
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
      if (!alive) throw new Error('this server has ended');
      return call();
    };
    return {
      provision: (spec, signal) => reach(() => this.provision(spec, signal)),
      recover: (known) => reach(() => this.recover(known)),
      guest: (id) => this.guest(id),
      destroy: (id) => reach(() => this.destroy(id)),
      setNetwork: (id, policy) => reach(() => this.setNetwork(id, policy)),
      usage: (id) => reach(() => this.usage(id)),
      onConnections: (listener) => this.onConnections(listener),
      onDeath: (listener) => this.onDeath(listener),
      cut: () => {
        alive = false;
        this.#listener = null;
        this.#connections = null;
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
