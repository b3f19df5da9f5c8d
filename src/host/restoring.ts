import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../core/errors.ts';
import type { RestoreSpec, VolumeMount } from '../core/host.ts';
import type { Egress } from '../core/network/egress.ts';
import { readAll } from './agent/answer.ts';
import { AgentClient } from './agent/client.ts';
import type { Checkpoints } from './checkpoints.ts';
import { entryOf } from './egress/entry.ts';
import type { Guests, WaitingGuest } from './guests.ts';
import type { KeptGuest } from './kept.ts';
import type { Manifest } from './manifest.ts';
import type { Room } from './room.ts';
import type { Runtime } from './runtime.ts';
import { restorableProtocol } from './saving.ts';
import type { Slots } from './slots.ts';
import type { InstalledTemplate, InstalledTemplates } from './templates.ts';
import { untilAborted } from './until-aborted.ts';
import type { PutBack } from './volumes/put-back.ts';
import type { SavedVolume } from './volumes/open-files.ts';
import type { VolumeBinds } from './volumes/binds.ts';

/** A guest with its identity, ready for commands. */
export type RestoredGuest = Omit<WaitingGuest, 'template'>;

export interface RestoringParts {
  readonly runtime: Runtime;
  readonly checkpoints: Checkpoints;
  readonly templates: InstalledTemplates;
  readonly slots: Slots;
  readonly guests: Guests;
  readonly room: Room;
  readonly egress: Egress;
  readonly binds: VolumeBinds;
  readonly putBack: PutBack;
}

const listenWithinMs = 20_000;

/** Makes guests go on: from disk, or those that were kept in memory. On failure nothing of the guest is left. */
export class Restoring {
  readonly #parts: RestoringParts;

  constructor(parts: RestoringParts) {
    this.#parts = parts;
  }

  /** Wakes a guest that was kept. On failure it is ended, and the checkpoint is still there. */
  async wake(kept: KeptGuest, spec: RestoreSpec, signal: AbortSignal): Promise<RestoredGuest> {
    const { runtime } = this.#parts;
    const { slot, handle } = kept;
    const client = this.#connect(slot.address, spec, handle);
    const guest = { slot, handle, client };
    try {
      await this.#admit(guest, spec);
      runtime.thaw(handle.container);
      await runtime.resume(handle);
      spec.lap?.('kept');
      await this.#identify(guest, spec, signal);
      return guest;
    } catch (reason) {
      await this.#abandon(guest);
      throw reason;
    }
  }

  async fromDisk(spec: RestoreSpec, signal: AbortSignal): Promise<RestoredGuest> {
    const { checkpoints, guests, room } = this.#parts;
    const { dir, manifest } = await checkpoints.open(spec.checkpoint.id);
    const template = this.#assertRestorable(manifest);
    if (attached(spec).length > 0 && manifest.ref.mountable !== true) throw new PaddockError('unprocessable', 'the template was built before volumes could be mounted: build it again');
    using _memory = await room.reserve(manifest.ref.memoryBytes);
    using _turn = await guests.boots.enter(signal);
    // Beside the restore, which takes longer. A guest from damaged files is ended before it gets an identity.
    const intact = checkpoints.verify(manifest);
    const damage = new AbortController();
    intact.catch((reason: unknown) => damage.abort(reason));
    const limit = AbortSignal.any([signal, damage.signal]);
    let guest: RestoredGuest | undefined;
    try {
      guest = await this.#load(spec, { dir, template, build: manifest.ref.build, agent: manifest.ref.agent, mountable: manifest.ref.mountable === true, volumes: manifest.volumes ?? [] }, limit);
      await untilAborted(intact, limit);
      await this.#identify(guest, spec, limit);
      return guest;
    } catch (reason) {
      if (guest !== undefined) await this.#abandon(guest);
      await untilAborted(intact, signal); // damage explains whatever else went wrong
      throw reason;
    }
  }

  async #load(spec: RestoreSpec, saved: { dir: string; template: InstalledTemplate; build: string; agent: string; mountable: boolean; volumes: readonly SavedVolume[] }, signal: AbortSignal): Promise<RestoredGuest> {
    const { runtime, slots, egress, templates, binds, putBack } = this.#parts;
    await templates.prepare(saved.template).catch((reason: unknown) => {
      throw new PaddockError('unprocessable', `the root file system of the template that the sandbox was made from cannot be used: ${(reason as Error).message}`, {}, { cause: reason });
    });
    const slot = await slots.claim(spec.limits.diskMb, signal);
    spec.lap?.('slot');
    let handle;
    try {
      await egress.admit(entryOf(spec.identity.sandboxId, slot.address, spec));
      spec.lap?.('egress');
      await binds.bind(slot.volumes, spec.volumes ?? [], { restoring: spec.attachesVolumes !== true });
      handle = await putBack.during(spec.checkpoint.id, slot.volumes, saved.volumes, () => runtime.restore(slot, { ...saved, limits: spec.limits }, signal));
      spec.lap?.('restore');
    } catch (reason) {
      await egress.expel(slot.address);
      await slots.release(slot);
      if (signal.aborted || reason instanceof PaddockError) throw reason;
      throw new PaddockError('unprocessable', `the sandbox could not be restored: ${(reason as Error).message}`, {}, { cause: reason });
    }
    const guest = { slot, handle, client: this.#connect(slot.address, spec, handle) };
    try {
      await this.#parts.guests.untilAnswered(guest, untilHeard(guest.client, signal));
      spec.lap?.('agent');
      return guest;
    } catch (reason) {
      await this.#abandon(guest);
      throw reason;
    }
  }

  #assertRestorable({ ref }: Manifest): InstalledTemplate {
    const { runtime, templates } = this.#parts;
    if (ref.runtime !== runtime.kind) throw new PaddockError('unprocessable', `the sandbox was saved by the runtime "${ref.runtime}", and this server runs "${runtime.kind}"`);
    if (ref.agentProtocol < restorableProtocol) throw new PaddockError('unprocessable', `the sandbox was saved with version ${ref.agentProtocol} of its agent, which cannot be restored: version ${restorableProtocol} is needed`);
    runtime.assertRestorable(ref);
    const template = templates.byDigest(ref.template);
    if (template === undefined) throw new PaddockError('unprocessable', `This machine no longer has the template ${ref.template} that the sandbox was made from: put it back, and the sandbox can be restored.`);
    return template;
  }

  #connect(address: string, spec: RestoreSpec, handle: KeptGuest['handle']): AgentClient {
    return new AgentClient(address, spec.savedToken, () => this.#parts.runtime.isAlive(handle));
  }

  #admit({ slot }: RestoredGuest, spec: RestoreSpec): Promise<void> {
    return this.#parts.egress.admit(entryOf(spec.identity.sandboxId, slot.address, spec));
  }

  async #identify(guest: RestoredGuest, spec: RestoreSpec, signal: AbortSignal): Promise<void> {
    // The same sandbox keeps its machine id; a copy is a machine of its own. Randomness is new for both: it must not come twice.
    const machineId = spec.sameSandbox ? '' : randomBytes(16).toString('hex');
    await this.#parts.guests.untilAnswered(guest, guest.client.reidentify(spec.identity, machineId, randomBytes(64), spec.limits, signal));
    signal.throwIfAborted();
    spec.lap?.('identity');
    const volumes = attached(spec);
    if (volumes.length === 0) return;
    await this.#parts.guests.untilAnswered(guest, guest.client.mount(volumes, signal));
    spec.lap?.('volumes');
  }

  async #abandon(guest: RestoredGuest): Promise<void> {
    guest.client.end(new PaddockError('gone', 'the sandbox was not completed'));
    await this.#parts.egress.expel(guest.slot.address);
    await this.#parts.guests.dispose(guest);
  }
}

/** Volumes that the saved guest does not know. */
function attached({ attachesVolumes, volumes = [] }: RestoreSpec): readonly VolumeMount[] {
  return attachesVolumes === true ? volumes : [];
}

/** A restored guest's network is up a moment before its agent hears, so what is not answered at once is asked again soon. */
export async function untilHeard(client: AgentClient, signal: AbortSignal): Promise<void> {
  const deadline = Date.now() + listenWithinMs;
  for (;;) {
    try {
      const { body } = await client.request({ method: 'GET', path: '/v1/health', signal, deadlineMs: 200 });
      await readAll(body, 65_536);
      return;
    } catch (reason) {
      if (signal.aborted || Date.now() > deadline || (reason instanceof PaddockError && ['gone', 'no_capacity'].includes(reason.code))) throw reason;
      await sleep(5, undefined, { signal });
    }
  }
}
