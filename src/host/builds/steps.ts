import { chmod, chown, lstat, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { PaddockError } from '../../core/errors.ts';
import type { GuestRef } from '../../core/host.ts';
import type { SandboxId } from '../../core/ids.ts';
import type { Egress } from '../../core/network/egress.ts';
import type { LayerId, LayerRef, StepSpec } from '../../core/templates/build-host.ts';
import type { Claiming } from '../claiming.ts';
import type { Guests } from '../guests.ts';
import { unmountAt } from '../mounts.ts';
import type { Room } from '../room.ts';
import type { GuestRoot, Runtime } from '../runtime.ts';
import type { Slot, Slots } from '../slots.ts';
import type { Tenant, Tenants } from '../tenants.ts';
import type { Layers } from './layers.ts';
import { mountOverlay, overlayRoot } from './overlay.ts';
import type { Roots } from './roots.ts';

export interface StepParts {
  readonly runtime: Runtime;
  readonly slots: Slots;
  readonly guests: Guests;
  readonly room: Room;
  readonly egress: Egress;
  readonly tenants: Tenants;
  readonly claiming: Claiming;
  readonly layers: Layers;
  readonly roots: Roots;
}

interface Step {
  /** Null while it boots. */
  readonly container: string | null;
  readonly layers: readonly LayerId[];
  /** When it began, milliseconds since the epoch. */
  readonly since: number;
}

/** For the guest's processes to end, and for what its kernel holds back to reach its files. */
const quietWithinMs = 10_000;

/**
 * Guests that carry out steps of builds. The root of one is an overlay of the host over the layers so far; the upper directory is on the
 * slot's disk, whose size bounds it, and becomes the next layer.
 */
export class Steps {
  readonly #parts: StepParts;
  readonly #steps = new Map<SandboxId, Step>();

  constructor(parts: StepParts) {
    this.#parts = parts;
  }

  async provision({ root, limits, identity, teamId, network }: StepSpec, signal: AbortSignal): Promise<GuestRef> {
    const { guests, room, roots, layers, claiming } = this.#parts;
    const { sandboxId } = identity;
    const since = Date.now();
    await room.assert(0);
    // From here on none of its layers is removed.
    const lower = await layers.inTurn(async () => {
      const trees = await roots.trees(root);
      this.#steps.set(sandboxId, { container: null, layers: root.layers, since });
      return trees;
    });
    try {
      const boot = { diskMb: limits.diskMb, diskUse: 'tree' as const, root: (slot: Slot): Promise<GuestRoot> => prepareRoot(slot, lower, { limits, env: roots.env(root) }) };
      const guest = await guests.boot(boot, signal);
      const ref = await claiming.claim(guest, { limits, identity, teamId, network }, signal);
      this.#steps.set(sandboxId, { container: ref.container, layers: root.layers, since });
      return ref;
    } catch (reason) {
      this.#steps.delete(sandboxId);
      throw reason;
    }
  }

  /** Whether the live guest of this id is one of a step. */
  has(id: SandboxId): boolean {
    const step = this.#steps.get(id);
    return step !== undefined && this.#parts.tenants.find(id)?.handle.container === step.container;
  }

  /** Live guests of steps. */
  all(): SandboxId[] {
    return [...this.#steps.keys()].filter((id) => this.has(id));
  }

  /** Layers below the guests of steps, those that boot included. */
  layersInUse(): readonly LayerId[] {
    for (const [id, step] of this.#steps) if (step.container !== null && !this.has(id)) this.#steps.delete(id);
    return [...this.#steps.values()].flatMap(({ layers }) => layers);
  }

  seal(id: SandboxId, signal: AbortSignal): Promise<LayerRef> {
    const { tenants, runtime } = this.#parts;
    const tenant = tenants.get(id);
    const step = this.#steps.get(id);
    if (step === undefined || !this.has(id)) throw new PaddockError('conflict', 'the sandbox carries out no step of a build: only what a step has written becomes a layer');
    return tenants.inTurn(tenant, async () => {
      await this.#quiet(tenant, signal);
      signal.throwIfAborted();
      if (tenant.ended.aborted || !runtime.isAlive(tenant.handle)) throw new PaddockError('gone', 'the step\'s sandbox ended before what it wrote could be kept');
      const sealing = this.#collect(tenant, step.since, signal);
      // Whoever wants to destroy it finds that it is on its way, and waits for that.
      const departed = tenants.depart(id, sealing.then(() => undefined, () => undefined));
      try {
        return await sealing;
      } finally {
        await departed;
        this.#steps.delete(id);
      }
    });
  }

  /** The guest's kernel holds some times of files back until it is told to write them. */
  async #quiet({ client, ended }: Tenant, signal: AbortSignal): Promise<void> {
    const limit = AbortSignal.any([signal, ended, AbortSignal.timeout(quietWithinMs)]);
    try {
      for (const { id, running } of await client.processes(limit)) if (running) await client.removeProcess(id, limit);
      for await (const _ of client.run({ cmd: 'sync', argv: ['sync'], kind: 'command', stdin: false, user: 'root' }, limit)) continue;
    } catch (reason) {
      // An image may have no such program, and what is lost without it is next to nothing.
      if (!(reason instanceof PaddockError && ['unprocessable', 'not_found'].includes(reason.code)) && !limit.aborted) throw reason;
    }
  }

  async #collect(tenant: Tenant, since: number, signal: AbortSignal): Promise<LayerRef> {
    const { runtime, slots, egress, layers } = this.#parts;
    const { slot, handle, client } = tenant;
    const sealed = new PaddockError('gone', 'the step has ended');
    client.end(sealed);
    tenant.ending.abort(sealed);
    try {
      await egress.expel(slot.address);
      await runtime.destroy(handle.container);
      await unmountAt(stepHome(slot));
      return await layers.keepStep(upperOf(slot), since, signal);
    } finally {
      // Again, where the above failed: both do nothing to what is gone.
      await runtime.destroy(handle.container);
      await slots.release(slot);
    }
  }
}

async function prepareRoot(slot: Slot, lower: readonly string[], { limits, env }: Pick<GuestRoot, 'limits' | 'env'>): Promise<GuestRoot> {
  const home = stepHome(slot);
  const [upper, work] = [upperOf(slot), join(slot.disk.mount, 'work')];
  await Promise.all([upper, work].map((dir) => mkdir(dir, { mode: 0o700 })));
  // The root directory itself is always the upper one.
  const below = await lstat(lower.at(-1)!);
  await chown(upper, below.uid, below.gid);
  await chmod(upper, below.mode & 0o7777);
  await mountOverlay({ home, lower, writable: { upper, work } });
  return { digest: null, rootfs: overlayRoot(home), limits, env, direct: true };
}

function stepHome(slot: Slot): string {
  return join(slot.dir, 'step');
}

function upperOf(slot: Slot): string {
  return join(slot.disk.mount, 'upper');
}
