import { PaddockError } from '../core/errors.ts';
import type { CheckpointRef, GuestRef } from '../core/host.ts';
import type { SandboxId, TeamId } from '../core/ids.ts';
import { agentPort } from './agent/client.ts';
import type { RestoredGuest } from './restoring.ts';
import type { Savable } from './saving.ts';

/** A guest with an identity. */
export interface Tenant extends Savable {
  readonly teamId: TeamId;
  readonly ending: AbortController;
  /** The checkpoint after which it stands still, until somebody decides what becomes of it. */
  held: CheckpointRef | null;
  /** What is done to it as a whole goes one after the other. */
  turn: Promise<unknown>;
  cpu: { readonly at: number; readonly micros: number };
}

/** The guests of sandboxes, and those that are on their way out. */
export class Tenants {
  readonly #dispose: (tenant: Tenant) => Promise<void>;
  readonly #tenants = new Map<SandboxId, Tenant>();
  readonly #endings = new Map<SandboxId, Promise<void>>();

  /** @param dispose ends a guest and takes everything of it back; nobody uses it any more. */
  constructor(dispose: (tenant: Tenant) => Promise<void>) {
    this.#dispose = dispose;
  }

  settle(id: SandboxId, teamId: TeamId, { slot, handle, client }: RestoredGuest, agentProtocol: number): GuestRef {
    const ending = new AbortController();
    this.#tenants.set(id, { teamId, slot, handle, client, agentProtocol, ending, ended: ending.signal, held: null, turn: Promise.resolve(), cpu: { at: Date.now(), micros: 0 } });
    return { ...handle, slot: slot.number, address: slot.address, agentPort, agentProtocol };
  }

  get(id: SandboxId): Tenant {
    const tenant = this.#tenants.get(id);
    if (tenant === undefined) throw new PaddockError('gone', 'the sandbox has ended');
    return tenant;
  }

  find(id: SandboxId): Tenant | undefined {
    return this.#tenants.get(id);
  }

  entries(): [SandboxId, Tenant][] {
    return [...this.#tenants];
  }

  all(): Tenant[] {
    return [...this.#tenants.values()];
  }

  /** Resolves when the last guest of the sandbox has been let go; at once when none is on its way. */
  async departed(id: SandboxId): Promise<void> {
    await this.#endings.get(id);
  }

  /** Whoever is connected gets the error; then the guest is ended. */
  async dismiss(tenant: Tenant, error: PaddockError): Promise<void> {
    tenant.client.end(error);
    tenant.ending.abort(error);
    await this.#dispose(tenant);
    await tenant.turn;
  }

  /** From here on the guest is nobody's; whoever asks for its end waits for this. */
  depart(id: SandboxId, ending: Promise<void>): Promise<void> {
    this.#tenants.delete(id);
    const settled = ending.finally(() => this.#endings.delete(id));
    this.#endings.set(id, settled);
    return settled;
  }

  inTurn<T>(tenant: Tenant, work: () => Promise<T>): Promise<T> {
    const turn = tenant.turn.then(work);
    tenant.turn = turn.catch(() => undefined);
    return turn;
  }

  forgetAll(): void {
    this.#tenants.clear();
  }
}
