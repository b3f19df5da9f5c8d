import { constants, closeSync, openSync, readSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../core/errors.ts';
import { type Disk, type DiskUse, makeDisk, removeDisk } from './disk.ts';
import type { Instance } from './instance.ts';
import type { HostLog } from './log.ts';
import { unmountAt } from './mounts.ts';
import { linkAddresses, slotCapacity } from './network/addresses.ts';
import { admitSlot, expelSlot } from './network/gateway.ts';
import { ipBatch, listNetns } from './network/netns.ts';
import { ToolError, runTool } from './tool.ts';
import { makePoints } from './volumes/points.ts';

/** A place for one guest: a network namespace with its link and address, a disk, and a directory for bundle and logs. */
export interface Slot {
  readonly number: number;
  readonly netns: string;
  /** The guest's IPv4 address, unique on the host. */
  readonly address: string;
  readonly dir: string;
  readonly bundle: string;
  /** Where volumes are mounted for the guest. */
  readonly volumes: string;
  readonly disk: Disk;
  /** A FIFO: the guest's standard output and error. Never a regular file, which a checkpoint would have to find again. */
  readonly console: string;
  /** What process 1 wrote since last asked, at most 64 KiB. */
  readConsole(): string;
}

/**
 * Slots are built ahead, because a namespace, a link and a file system cost 30 ms that a create should not wait for.
 * Building goes one at a time: the kernel's network lock allows no more anyway.
 */
export class Slots {
  readonly #instance: Instance;
  readonly #log: HostLog;
  readonly #ahead: number;
  readonly #diskMb: number;
  readonly #relieve: () => Promise<boolean>;
  readonly #ready: Slot[] = [];
  readonly #used = new Set<number>();
  #queue: Promise<unknown> = Promise.resolve();
  #refilling = false;
  #closed = false;

  /** @param options.relieve gives slots back that are used only for convenience; false when there are none. */
  constructor(instance: Instance, options: { ahead: number; diskMb: number; relieve?: () => Promise<boolean>; log: HostLog }) {
    this.#instance = instance;
    this.#ahead = options.ahead;
    this.#diskMb = options.diskMb;
    this.#relieve = options.relieve ?? (async () => false);
    this.#log = options.log;
  }

  /** How many are built ahead. */
  get ready(): number {
    return this.#ready.length;
  }

  /** Slots of which anything is left on the machine from an earlier run of the server. */
  async leftovers(): Promise<Set<number>> {
    const found = new Set<number>();
    const prefix = this.#instance.slotNetns(0).slice(0, -1);
    for (const name of listNetns()) {
      const number = name.startsWith(prefix) ? Number(name.slice(prefix.length)) : Number.NaN;
      if (Number.isInteger(number)) found.add(number);
    }
    for (const name of await readdir(this.#instance.slotsDir)) {
      const number = Number(name);
      if (Number.isInteger(number)) found.add(number);
    }
    return found;
  }

  /** Takes a slot that a living guest still uses back into the books. */
  async adopt(number: number, diskMb: number): Promise<Slot> {
    this.#used.add(number);
    // Another program may have flushed the rules meanwhile.
    if (listNetns().has(this.#instance.slotNetns(number))) await admitSlot(this.#instance, `s${number}`, linkAddresses(this.#instance.subnet, number).far);
    return this.#describe(number, { mount: join(this.#dir(number), 'disk'), sizeMb: diskMb });
  }

  /** A ready slot with a disk of this size for this use, its network as new. */
  async claim(diskMb: number, signal: AbortSignal, use: DiskUse = 'overlay'): Promise<Slot> {
    const at = use === 'overlay' ? this.#ready.findIndex((slot) => slot.disk.sizeMb === diskMb) : -1;
    const [ready] = at >= 0 ? this.#ready.splice(at, 1) : [];
    // With another disk there is a network at least.
    const near = ready === undefined ? this.#ready.pop() : undefined;
    if (ready !== undefined) {
      this.#refill();
      return ready;
    }
    try {
      const building = this.#inTurn(() => this.#build(near?.number ?? this.#free(), diskMb, use), near === undefined ? signal : undefined);
      this.#refill();
      return await building;
    } catch (reason) {
      const exhausted = reason instanceof PaddockError && reason.code === 'no_capacity';
      if (exhausted && (await this.#relieve())) return this.claim(diskMb, signal, use);
      throw reason;
    }
  }

  /** Takes the slot back; what its guest wrote is destroyed. A slot that cannot be cleaned is never used again. */
  async release(slot: Slot): Promise<void> {
    await this.#inTurn(async () => {
      if (!this.#closed && this.#ready.length < this.#ahead && slot.disk.sizeMb === this.#diskMb) {
        this.#ready.push(await this.#build(slot.number, this.#diskMb));
      } else {
        await this.#takeDown(slot.number);
      }
    });
  }

  /** Removes what is left of a slot whose guest is gone. */
  async discard(number: number): Promise<void> {
    await this.#inTurn(() => this.#takeDown(number));
  }

  /** Starts building up to the number that is kept ahead, in the background. */
  start(): void {
    this.#refill();
  }

  /** Stops building; what is ready is taken down. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#queue.catch(() => {});
    for (const slot of this.#ready.splice(0)) await this.#takeDown(slot.number);
  }

  #refill(): void {
    if (this.#refilling || this.#closed) return;
    this.#refilling = true;
    void (async () => {
      try {
        while (!this.#closed && this.#ready.length < this.#ahead) {
          await this.#inTurn(async () => {
            // Slots that were given back meanwhile count too.
            if (this.#ready.length < this.#ahead) this.#ready.push(await this.#build(this.#free(), this.#diskMb));
          });
        }
      } catch (reason) {
        this.#log.warn({ err: reason }, 'slots cannot be built ahead');
      } finally {
        this.#refilling = false;
      }
    })();
  }

  async #inTurn<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const turn = this.#queue.then(() => {
      signal?.throwIfAborted();
      return work();
    });
    this.#queue = turn.catch(() => {});
    return turn;
  }

  #free(): number {
    const capacity = slotCapacity(this.#instance.subnet);
    for (let number = 1; number <= capacity; number++) {
      if (!this.#used.has(number)) {
        this.#used.add(number);
        return number;
      }
    }
    throw new PaddockError('no_capacity', `All ${capacity} sandbox addresses of ${this.#instance.subnet.text} are in use: end some sandboxes, or set PADDOCK_SUBNET to a larger network.`);
  }

  async #build(number: number, diskMb: number, use?: DiskUse): Promise<Slot> {
    const { subnet, gatewayNetns } = this.#instance;
    const { near, far } = linkAddresses(subnet, number);
    const netns = this.#instance.slotNetns(number);
    const dir = this.#dir(number);
    this.#used.add(number);
    try {
      if (!listNetns().has(netns)) {
        await runTool('ip', ['netns', 'add', netns]);
        await whenVanished(() =>
          ipBatch(gatewayNetns, [`link add s${number} type veth peer name eth0 netns ${netns}`, `addr add ${near}/30 dev s${number}`, `link set s${number} up`]),
        );
        await admitSlot(this.#instance, `s${number}`, far);
      }
      // runsc takes the address off the link for itself, so this is needed for each guest.
      await ipBatch(netns, ['link set eth0 addrgenmode none', 'link set lo up', `addr replace ${far}/30 dev eth0`, 'link set eth0 up', `route replace default via ${near}`]);
      const disk = await this.#renew(dir, diskMb, use);
      return this.#describe(number, disk);
    } catch (reason) {
      await this.#takeDown(number).catch((cause: unknown) => this.#log.error({ err: cause, slot: number }, 'a broken slot could not be removed; it is not used again'));
      throw reason;
    }
  }

  async #renew(dir: string, diskMb: number, use?: DiskUse): Promise<Disk> {
    await unmountAt(dir);
    await removeDisk(join(dir, 'disk.img'), join(dir, 'disk'));
    await rm(dir, { recursive: true, force: true });
    await mkdir(join(dir, 'bundle'), { recursive: true, mode: 0o700 });
    await makePoints(join(dir, 'volumes'));
    await runTool('mkfifo', ['-m', '600', join(dir, 'console')]);
    return makeDisk(join(dir, 'disk.img'), join(dir, 'disk'), diskMb, use);
  }

  async #takeDown(number: number): Promise<void> {
    const { netns, dir, link, address } = { netns: this.#instance.slotNetns(number), dir: this.#dir(number), link: `s${number}`, address: linkAddresses(this.#instance.subnet, number).far };
    await unmountAt(dir);
    await removeDisk(join(dir, 'disk.img'), join(dir, 'disk'));
    if (listNetns().has(netns)) {
      await expelSlot(this.#instance, link, address).catch(() => {}); // absent when the build did not come that far
      await runTool('ip', ['netns', 'delete', netns]);
    }
    await rm(dir, { recursive: true, force: true });
    this.#used.delete(number);
  }

  #dir(number: number): string {
    return join(this.#instance.slotsDir, String(number));
  }

  #describe(number: number, disk: Disk): Slot {
    const dir = this.#dir(number);
    const console = join(dir, 'console');
    return Object.freeze({
      number,
      netns: this.#instance.slotNetns(number),
      address: linkAddresses(this.#instance.subnet, number).far,
      dir,
      bundle: join(dir, 'bundle'),
      volumes: join(dir, 'volumes'),
      disk,
      console,
      readConsole: () => drainFifo(console),
    });
  }
}

/** A link lives on for a moment after the namespace of its other end has been deleted. */
async function whenVanished<T>(add: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await add();
    } catch (reason) {
      if (attempt >= 50 || !(reason instanceof ToolError) || !/File exists/.test(reason.stderr)) throw reason;
      await sleep(20);
    }
  }
}

function drainFifo(path: string): string {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw reason;
  }
  try {
    const buffer = Buffer.alloc(65_536);
    return buffer.toString('utf8', 0, readSync(fd, buffer));
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code === 'EAGAIN') return '';
    throw reason;
  } finally {
    closeSync(fd);
  }
}
