import { randomBytes } from 'node:crypto';
import { PaddockError } from '../core/errors.ts';
import type { GuestRef, GuestSpec } from '../core/host.ts';
import type { Egress } from '../core/network/egress.ts';
import { agentProtocol } from './agent/client.ts';
import { entryOf } from './egress/entry.ts';
import type { Guests } from './guests.ts';
import type { RestoredGuest } from './restoring.ts';
import type { Tenants } from './tenants.ts';
import type { VolumeBinds } from './volumes/binds.ts';

export type Claim = Pick<GuestSpec, 'limits' | 'identity' | 'teamId' | 'network' | 'inspection' | 'volumes' | 'lap'>;

/** Gives guests that were never anybody's an identity. */
export class Claiming {
  readonly #guests: Guests;
  readonly #egress: Egress;
  readonly #tenants: Tenants;
  readonly #binds: VolumeBinds;

  constructor(guests: Guests, egress: Egress, tenants: Tenants, binds: VolumeBinds) {
    this.#binds = binds;
    this.#guests = guests;
    this.#egress = egress;
    this.#tenants = tenants;
  }

  /** Resolves when the agent has acknowledged it, and its volumes are mounted. On failure nothing of the guest is left. */
  async claim({ slot, handle, client }: RestoredGuest, spec: Claim, signal: AbortSignal): Promise<GuestRef> {
    const { sandboxId } = spec.identity;
    try {
      // First the rules, then the identity: nothing of the owner's can run before both.
      await this.#egress.admit(entryOf(sandboxId, slot.address, spec));
      spec.lap?.('egress');
      await this.#guests.untilAnswered({ handle, client }, client.claim(spec.identity, randomBytes(16).toString('hex'), randomBytes(64), spec.limits, signal));
      signal.throwIfAborted();
      spec.lap?.('claim');
      if (spec.volumes !== undefined && spec.volumes.length > 0) {
        await this.#binds.bind(slot.volumes, spec.volumes, { restoring: false });
        await this.#guests.untilAnswered({ handle, client }, client.mount(spec.volumes, signal));
        spec.lap?.('volumes');
      }
    } catch (reason) {
      client.end(new PaddockError('gone', 'the sandbox was not completed'));
      await this.#egress.expel(slot.address);
      await this.#guests.dispose({ slot, handle });
      throw reason;
    }
    return this.#tenants.settle(sandboxId, spec.teamId, { slot, handle, client }, agentProtocol);
  }
}
