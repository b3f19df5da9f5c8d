import { createHash } from 'node:crypto';

/** 198.18.0.0/15: reserved for measurements (RFC 2544), so that no host of the internet has one of these addresses. */
const base = 198 * 2 ** 24 + 18 * 2 ** 16;
const size = 2 ** 17;

/**
 * The addresses that one sandbox was told for names. Each name keeps its address while it is known; when there are too many, the one
 * that was longest unused makes room. An address is derived from sandbox and name, so that after a restart of this process a guest that
 * still holds an old answer connects, as soon as it asks again, to the same address, and hardly ever to another name's.
 */
export class SyntheticNames {
  readonly #sandbox: string;
  readonly #capacity: number;
  /** In the order of use. */
  readonly #byName = new Map<string, number>();
  readonly #byAddress = new Map<number, string>();

  constructor(sandbox: string, capacity: number) {
    this.#sandbox = sandbox;
    this.#capacity = capacity;
  }

  nameOf(address: number): string | null {
    return this.#byAddress.get(address) ?? null;
  }

  get size(): number {
    return this.#byName.size;
  }

  /** Notes that the name is in use. */
  touch(name: string): void {
    const address = this.#byName.get(name);
    if (address === undefined) return;
    this.#byName.delete(name);
    this.#byName.set(name, address);
  }

  /**
   * The name's address, a new one if it has none. `replaced` is the address of a name that had to go; names for which `inUse` is true stay.
   *
   * @returns null when every place is in use.
   */
  allocate(name: string, inUse: (name: string) => boolean): { address: number; isNew: boolean; replaced: number | null } | null {
    const held = this.#byName.get(name);
    if (held !== undefined) {
      this.touch(name);
      return { address: held, isNew: false, replaced: null };
    }
    let replaced: number | null = null;
    if (this.#byName.size >= this.#capacity) {
      for (const [candidate, address] of this.#byName) {
        if (inUse(candidate)) continue;
        this.#byName.delete(candidate);
        this.#byAddress.delete(address);
        replaced = address;
        break;
      }
      if (replaced === null) return null;
    }
    const first = createHash('sha256').update(`${this.#sandbox} ${name}`).digest().readUInt32BE(0) % size;
    let offset = first;
    // The first and last address of the range look like a network's and a broadcast address.
    while (offset === 0 || offset === size - 1 || this.#byAddress.has(base + offset)) offset = (offset + 1) % size;
    this.#byName.set(name, base + offset);
    this.#byAddress.set(base + offset, name);
    return { address: base + offset, isNew: true, replaced };
  }

  /** Addresses of the names for which `keep` holds. */
  *addresses(keep: (name: string) => boolean): Generator<number> {
    for (const [name, address] of this.#byName) if (keep(name)) yield address;
  }
}
