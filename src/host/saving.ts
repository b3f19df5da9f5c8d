import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../core/errors.ts';
import type { CheckpointOptions, CheckpointRef } from '../core/host.ts';
import type { AgentClient } from './agent/client.ts';
import type { Checkpoints, Draft } from './checkpoints.ts';
import { diskUsage } from './disk.ts';
import type { HostLog } from './log.ts';
import type { Runtime, RuntimeHandle } from './runtime.ts';
import type { Slot } from './slots.ts';
import type { OpenFiles, SavedVolume } from './volumes/open-files.ts';

/** From this version on an agent can be told that it stands still, and be given another identity. */
export const restorableProtocol = 2;

const gib = 1024 * 1024 * 1024;
/** For calls that are under way into the guest; what takes longer is cut. */
const settleMs = 1000;

/** How long a guest has to notice that its connections to the outside were reset, before it stands still. */
const noticeMs = 10;

/** The way out of guests, as far as saving them goes. */
export interface WayOut {
  seclude(address: string): Promise<void>;
  reopen(address: string): Promise<void>;
}

/** A guest as far as saving it goes. */
export interface Savable {
  readonly slot: Slot;
  readonly handle: RuntimeHandle;
  readonly client: AgentClient;
  readonly agentProtocol: number;
  /** Aborted when the guest comes to its end, by itself or not. */
  readonly ended: AbortSignal;
}

/** Saves guests to disk. Whatever fails, the guest goes on and nothing is left of the attempt. */
export class Saving {
  readonly #runtime: Runtime;
  readonly #checkpoints: Checkpoints;
  readonly #wayOut: WayOut;
  readonly #openFiles: OpenFiles;
  readonly #log: HostLog;

  constructor(runtime: Runtime, checkpoints: Checkpoints, wayOut: WayOut, openFiles: OpenFiles, log: HostLog) {
    this.#openFiles = openFiles;
    this.#runtime = runtime;
    this.#wayOut = wayOut;
    this.#checkpoints = checkpoints;
    this.#log = log;
  }

  /** With `hold` the guest is paused when this resolves, and its client holds what is asked of it. */
  async save(guest: Savable, { checkpointId, hold, lap = () => {} }: CheckpointOptions, signal: AbortSignal): Promise<CheckpointRef> {
    const { handle, slot, client, agentProtocol } = guest;
    const origin = this.#runtime.origin(slot);
    if (origin === null || agentProtocol < restorableProtocol) {
      throw new PaddockError('unprocessable', 'the sandbox was started by an earlier version of Paddock, which could not save sandboxes: create a new one to pause it or take snapshots');
    }
    const { memoryBytes } = this.#runtime.stats(handle.container);
    const bytes = memoryBytes + (await diskUsage(slot.disk.mount));
    const limit = AbortSignal.any([signal, guest.ended]);
    const draft = await this.#checkpoints.begin(checkpointId, bytes);
    let volumes: readonly SavedVolume[] = [];
    try {
      // Reset now, connections end as programs know it. Those that are open in a checkpoint are aborted by a restore, and the kernel of a
      // restored guest can then forget to tell a program of its other descriptors.
      await Promise.all([client.hold(settleMs), this.#wayOut.seclude(slot.address).then(() => sleep(noticeMs))]);
      lap('hold');
      limit.throwIfAborted();
      const since = performance.now();
      await this.#runtime.pause(handle);
      await this.#runtime.save(handle, draft.dir, { signal: limit, deadlineMs: 60_000 + Math.ceil(bytes / gib) * 10_000 });
      volumes = await this.#openFiles.keep(checkpointId, handle.pid, slot.volumes, limit);
      lap('save');
      // What is on its way to the disk does not change any more.
      if (!hold) await this.goOn(guest);
      const pausedForMs = Math.round(performance.now() - since);
      const ref = await draft.finish({ runtime: this.#runtime.kind, build: handle.build, agentProtocol, ...origin, memoryBytes, pausedForMs }, volumes);
      lap('durable');
      return ref;
    } catch (reason) {
      await this.#undo(guest, draft);
      await this.#openFiles.release(checkpointId, volumes).catch(() => undefined); // the next mount of the volume does
      throw this.#explain(reason, guest, signal);
    }
  }

  /** Lets a guest that stands still go on. Does nothing to one that does not. */
  async goOn({ handle, client, slot }: Savable): Promise<void> {
    await this.#wayOut.reopen(slot.address);
    if (this.#runtime.pauseState(handle) !== 'running' && this.#runtime.isAlive(handle)) await this.#runtime.resume(handle);
    client.release();
  }

  async #undo(guest: Savable, draft: Draft): Promise<void> {
    try {
      await this.goOn(guest);
    } catch (reason) {
      // It goes on as soon as its kernel finds the time, or not at all. Its calls will tell.
      if (this.#runtime.isAlive(guest.handle)) this.#log.error({ err: reason, container: guest.handle.container }, 'a guest could not be made to go on after it was saved');
      guest.client.release();
    }
    await draft.discard().catch((reason: unknown) => this.#log.error({ err: reason, dir: draft.dir }, 'an unfinished checkpoint could not be removed; the next start does'));
  }

  #explain(reason: unknown, guest: Savable, signal: AbortSignal): unknown {
    if (guest.ended.aborted || !this.#runtime.isAlive(guest.handle)) return new PaddockError('gone', 'the sandbox ended while it was being saved', {}, { cause: reason });
    if (signal.aborted) return signal.reason;
    if (reason instanceof PaddockError) return reason;
    const text = reason instanceof Error ? reason.message : String(reason);
    if (/no space left on device|ENOSPC/i.test(text)) return new PaddockError('no_space', 'the disk of the server is full: the sandbox could not be saved and goes on', {}, { cause: reason });
    const lost = /gofer\.dentry\("\d+\/([^"]{1,300})"\)\.beforeSave: deleted/.exec(text)?.[1];
    if (lost !== undefined) {
      return new PaddockError('unprocessable', `the sandbox could not be saved and goes on: a program in it has ${JSON.stringify(lost)} of a mounted volume open, and has seen that it was deleted or replaced since. Let the program close it, or end it, and try again.`, { reason: 'deleted_file_open' }, { cause: reason });
    }
    return new PaddockError('unprocessable', `the sandbox could not be saved and goes on: ${text.split('\n', 1)[0]!.slice(0, 500)}`, {}, { cause: reason });
  }
}
