import { PaddockError } from '../core/errors.ts';
import type { Lap } from '../core/host.ts';
import { AgentClient } from './agent/client.ts';
import type { DiskUse } from './disk.ts';
import type { HostLog } from './log.ts';
import type { Room } from './room.ts';
import type { GuestRoot, Runtime, RuntimeHandle } from './runtime.ts';
import type { Slot, Slots } from './slots.ts';
import type { InstalledTemplate, InstalledTemplates } from './templates.ts';

/** A booted guest without identity, with all that it holds on the host. */
export interface WaitingGuest {
  readonly template: InstalledTemplate;
  readonly slot: Slot;
  readonly handle: RuntimeHandle;
  readonly client: AgentClient;
}

/** What a guest is booted from: its root is asked for when its slot is there. */
export interface BootSource {
  readonly diskMb: number;
  readonly diskUse: DiskUse;
  root(slot: Slot): Promise<GuestRoot>;
}

/**
 * Boots guests, one after the other's start, and keeps some waiting: booted, without identity and frozen, so that they cost no
 * CPU. A create takes a waiting one or boots one by the same code.
 */
export class Guests {
  readonly #runtime: Runtime;
  readonly #templates: InstalledTemplates;
  readonly #slots: Slots;
  readonly #room: Room;
  readonly #log: HostLog;
  readonly #wanted: number;
  readonly #waiting = new Map<string, WaitingGuest[]>();
  readonly #filling = new Map<string, Promise<void>>();
  /** Whoever boots or restores a guest passes here. */
  readonly boots: Turnstile;
  #closed = false;

  constructor(runtime: Runtime, templates: InstalledTemplates, slots: Slots, room: Room, options: { warmGuests: number; parallelBoots: number; log: HostLog }) {
    this.#runtime = runtime;
    this.#templates = templates;
    this.#slots = slots;
    this.#room = room;
    this.#log = options.log;
    this.#wanted = options.warmGuests;
    this.boots = new Turnstile(options.parallelBoots);
  }

  /** How many wait, of all templates. */
  get waiting(): number {
    return [...this.#waiting.values()].reduce((sum, guests) => sum + guests.length, 0);
  }

  /** A guest that listens and was never anybody's. */
  async take(template: InstalledTemplate, signal: AbortSignal, lap: Lap = () => {}): Promise<WaitingGuest> {
    const waiting = this.#waiting.get(template.digest) ?? [];
    for (let guest = waiting.shift(); guest !== undefined; guest = waiting.shift()) {
      this.keep(template);
      if (this.#runtime.isAlive(guest.handle)) {
        this.#runtime.thaw(guest.handle.container);
        lap('waiting');
        return guest;
      }
      void this.dispose(guest);
    }
    await this.#room.assert(0);
    return this.#bootTemplate(template, signal, lap);
  }

  /** Ends a guest and gives its slot back. A slot that cannot be cleaned is logged and stays out of use. */
  async dispose(guest: Pick<WaitingGuest, 'slot' | 'handle'>): Promise<void> {
    await this.#runtime.destroy(guest.handle.container);
    await this.#slots.release(guest.slot);
  }

  /** Sees to it, in the background, that enough guests of the template wait. */
  keep(template: InstalledTemplate): void {
    if (this.#wanted === 0 || this.#closed || this.#filling.has(template.digest)) return;
    const filling = this.#fill(template)
      .catch((reason: unknown) => this.#log.warn({ err: reason, template: template.name }, 'waiting guests cannot be booted'))
      .finally(() => this.#filling.delete(template.digest));
    this.#filling.set(template.digest, filling);
  }

  /** Ends all that wait. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#filling.values());
    for (const waiting of this.#waiting.values()) await Promise.all(waiting.splice(0).map((guest) => this.dispose(guest)));
  }

  async #fill(template: InstalledTemplate): Promise<void> {
    const waiting = this.#waiting.get(template.digest) ?? [];
    this.#waiting.set(template.digest, waiting);
    while (!this.#closed && waiting.length < this.#wanted) {
      await this.#room.assert(0);
      const guest = await this.#bootTemplate(template, new AbortController().signal);
      try {
        await this.#runtime.freeze(guest.handle.container);
      } catch (reason) {
        await this.dispose(guest);
        throw reason;
      }
      waiting.push(guest);
    }
  }

  async #bootTemplate(template: InstalledTemplate, signal: AbortSignal, lap?: Lap): Promise<WaitingGuest> {
    const root = async (): Promise<GuestRoot> => {
      await this.#templates.prepare(template);
      return template;
    };
    return { template, ...(await this.boot({ diskMb: template.limits.diskMb, diskUse: 'overlay', root }, signal, lap)) };
  }

  /** A new guest that listens, without identity. On failure nothing of it is left. */
  async boot(source: BootSource, signal: AbortSignal, lap: Lap = () => {}): Promise<Omit<WaitingGuest, 'template'>> {
    using _turn = await this.boots.enter(signal);
    const slot = await this.#slots.claim(source.diskMb, signal, source.diskUse);
    lap('slot');
    let handle: RuntimeHandle | undefined;
    try {
      const started = await this.#runtime.start(slot, await source.root(slot), signal);
      handle = started;
      lap('boot');
      const client = new AgentClient(slot.address, null, () => this.#runtime.isAlive(started));
      await this.untilAnswered({ handle: started, client }, client.untilListening(signal));
      lap('agent');
      return { slot, handle: started, client };
    } catch (reason) {
      if (handle === undefined) await this.#slots.release(slot);
      else await this.dispose({ slot, handle });
      if (signal.aborted || reason instanceof PaddockError) throw reason;
      // Nothing has happened yet, so the caller may simply try again.
      throw new PaddockError('no_capacity', `the sandbox could not be started: ${(reason as Error).message}`, { retryAfterSeconds: 1 }, { cause: reason });
    }
  }

  /** Waits for a new guest's agent no longer than the guest lives. A death here may be tried again: nothing has happened yet. */
  async untilAnswered<T>(guest: Pick<WaitingGuest, 'handle' | 'client'>, answer: Promise<T>): Promise<T> {
    const died = (cause?: unknown): PaddockError => new PaddockError('no_capacity', 'the sandbox ended while it was being started; try again', { retryAfterSeconds: 1 }, { cause });
    const pulse = setInterval(() => {
      if (!this.#runtime.isAlive(guest.handle)) guest.client.end(died());
    }, 50);
    try {
      return await answer;
    } catch (reason) {
      throw this.#runtime.isAlive(guest.handle) ? reason : died(reason);
    } finally {
      clearInterval(pulse);
    }
  }
}

/** Lets so many through at a time, in the order they came: more parallel boots than cores only make each slower. */
export class Turnstile {
  #free: number;
  readonly #queue: (() => void)[] = [];

  constructor(width: number) {
    this.#free = width;
  }

  async enter(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    if (this.#free > 0) this.#free--;
    else {
      await new Promise<void>((resolve, reject) => {
        const pass = (): void => {
          signal.removeEventListener('abort', leave);
          resolve();
        };
        const leave = (): void => {
          this.#queue.splice(this.#queue.indexOf(pass), 1);
          reject(signal.reason as Error);
        };
        this.#queue.push(pass);
        signal.addEventListener('abort', leave, { once: true });
      });
    }
    let inside = true;
    return {
      [Symbol.dispose]: () => {
        if (!inside) return;
        inside = false;
        const next = this.#queue.shift();
        if (next === undefined) this.#free++;
        else next();
      },
    };
  }
}
