import { spawnSync } from 'node:child_process';
import type { Cidr } from '../core/network/addresses.ts';
import type { PolicyShape } from '../core/network/decide.ts';
import { filterRules, filterTable, type FilterPlaces } from './filter-rules.ts';
import { Netfilter, type SetChange } from './netfilter.ts';
import { errno, SystemCallError } from './sockets.ts';

/** Attempts to one place that were reset before a handshake, since they were asked for last. Addresses are unsigned 32-bit numbers. */
export interface Refusals {
  readonly source: number;
  readonly destination: number;
  readonly port: number;
  readonly count: number;
}

/**
 * The packet filter's idea of who may reach what. Each change is one transaction of the kernel's and in force when the method returns.
 * Fails closed: a change that cannot be made leaves the guest without any access, and says so.
 */
export class Filter {
  readonly #netns: string;
  readonly #places: FilterPlaces;
  readonly #netfilter: Netfilter;
  /** What the sets hold, by source address: element → how to make it. */
  readonly #elements = new Map<number, Map<string, Element>>();
  #own = new Set<number>();
  #counts = new Map<string, number>();

  /** Installs the rules with empty sets: from here on nothing passes that is not admitted. @throws Error with what nft said. */
  constructor(netns: string, places: FilterPlaces) {
    this.#netns = netns;
    this.#places = places;
    this.#install();
    this.#netfilter = new Netfilter(netns, filterTable);
  }

  /** The guest's rules from now on. Names that it was given addresses for stay, without those in `withdrawn`. */
  admit(source: number, shape: PolicyShape, synthetic: Iterable<number>): void {
    const wanted = new Map<string, Element>();
    const want = (element: Element): unknown => wanted.set(`${element.set} ${element.key.toString('hex')} ${element.end?.toString('hex') ?? ''}`, element);
    want({ set: 'admitted', key: bytes(source) });
    if (shape.mode === 'open') want({ set: 'open', key: bytes(source) });
    for (const cidr of shape.allowCidrs) want(range('allowed', source, cidr));
    for (const cidr of shape.denyCidrs) want(range('denied', source, cidr));
    for (const address of synthetic) want(pair(source, address));
    this.#become(source, wanted);
  }

  expel(source: number): void {
    this.#become(source, new Map());
  }

  /** Opens the way to a synthetic address, and closes it to the one whose place it takes. */
  addSynthetic(source: number, address: number, instead: number | null): void {
    const held = this.#elements.get(source);
    if (held === undefined) return;
    const changes: SetChange[] = [];
    if (instead !== null && held.delete(syntheticName(source, instead))) changes.push({ op: 'delete', ...pair(source, instead) });
    if (!held.has(syntheticName(source, address))) {
      held.set(syntheticName(source, address), pair(source, address));
      changes.push({ op: 'add', ...pair(source, address) });
    }
    this.#commitFor(source, changes);
  }

  /** The host's own addresses, which no guest reaches whatever network they are in. */
  setOwn(addresses: ReadonlySet<number>): void {
    const changes: SetChange[] = [];
    for (const address of this.#own) if (!addresses.has(address)) changes.push({ op: 'delete', set: 'own', key: bytes(address) });
    for (const address of addresses) if (!this.#own.has(address)) changes.push({ op: 'add', set: 'own', key: bytes(address) });
    if (changes.length === 0) return;
    this.#own = new Set(addresses);
    this.#commit(changes);
  }

  /** What was refused before a handshake since the last call. Also finds out that another program removed the table, and brings it back. */
  takeRefusals(): Refusals[] {
    const refusals: Refusals[] = [];
    const counts = new Map<string, number>();
    for (const { key, packets } of this.#orRepaired(() => this.#netfilter.list('refused'), [])) {
      const name = key.toString('hex');
      const before = this.#counts.get(name) ?? 0;
      counts.set(name, packets);
      // An element that ran out and came back counts from zero.
      const count = packets >= before ? packets - before : packets;
      if (count > 0) refusals.push({ source: key.readUInt32BE(0), destination: key.readUInt32BE(4), port: key.readUInt16BE(8), count });
    }
    this.#counts = counts;
    return refusals;
  }

  close(): void {
    this.#netfilter.close();
  }

  #become(source: number, wanted: Map<string, Element>): void {
    const held = this.#elements.get(source) ?? new Map<string, Element>();
    const changes: SetChange[] = [];
    for (const [name, element] of held) if (!wanted.has(name)) changes.push({ op: 'delete', ...element });
    for (const [name, element] of wanted) if (!held.has(name)) changes.push({ op: 'add', ...element });
    changes.sort((a, b) => order(a) - order(b));
    if (wanted.size === 0) this.#elements.delete(source);
    else this.#elements.set(source, wanted);
    this.#commitFor(source, changes);
  }

  #commitFor(source: number, changes: readonly SetChange[]): void {
    try {
      this.#commit(changes);
    } catch (reason) {
      // Nobody can say what the sets hold now: start again from the rules without this guest.
      this.#elements.delete(source);
      this.#reinstall();
      throw reason;
    }
  }

  #commit(changes: readonly SetChange[]): void {
    this.#orRepaired(() => this.#netfilter.commit(changes), undefined);
  }

  /** Does the work; when the table or an element of it is gone, puts everything back as it should be instead. */
  #orRepaired<T>(work: () => T, otherwise: T): T {
    try {
      return work();
    } catch (reason) {
      if (!(reason instanceof SystemCallError) || reason.errno !== errno.ENOENT) throw reason;
      this.#reinstall();
      return otherwise;
    }
  }

  #install(): void {
    const { status, stderr, error } = spawnSync('ip', ['netns', 'exec', this.#netns, 'nft', '-f', '-'], { input: filterRules(this.#places), timeout: 10_000 });
    if (status !== 0) throw new Error(`The packet filter's rules cannot be installed in ${this.#netns}: ${error?.message ?? stderr.toString().trim().slice(0, 2000)}`);
  }

  #reinstall(): void {
    this.#install();
    this.#counts = new Map();
    const changes: SetChange[] = [...this.#own].map((address) => ({ op: 'add', set: 'own', key: bytes(address) }));
    for (const elements of this.#elements.values()) for (const element of elements.values()) changes.push({ op: 'add', ...element });
    this.#netfilter.commit(changes.sort((a, b) => order(a) - order(b)));
  }
}

interface Element {
  readonly set: string;
  readonly key: Buffer;
  readonly end?: Buffer;
}

/** Deletions first, so that a range may be put where an overlapping one was; equal sets together, so that few messages do. */
function order(change: SetChange): number {
  return (change.op === 'delete' ? 0 : 100) + sets.indexOf(change.set);
}
const sets = ['open', 'allowed', 'denied', 'synthetic', 'own', 'admitted'];

function bytes(...addresses: readonly number[]): Buffer {
  const key = Buffer.alloc(addresses.length * 4);
  for (const [i, address] of addresses.entries()) key.writeUInt32BE(address, i * 4);
  return key;
}

function range(set: string, source: number, { base, prefix }: Cidr): Element {
  return { set, key: bytes(source, base), end: bytes(source, base + 2 ** (32 - prefix) - 1) };
}

function pair(source: number, address: number): Element {
  return { set: 'synthetic', key: bytes(source, address) };
}

function syntheticName(source: number, address: number): string {
  return `synthetic ${bytes(source, address).toString('hex')} `;
}
