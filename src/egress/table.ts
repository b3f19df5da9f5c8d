import type { EgressEntry } from '../core/network/egress.ts';
import type { Filter } from './filter.ts';
import { Guest } from './guest.ts';
import { TokenTables } from './scanners/pii/token-tables.ts';
import type { EgressLimits } from './settings.ts';

/**
 * Who may reach what, by source address. When a method returns, the packet filter, the proxy and the resolver follow it. A change
 * narrows before it widens: no moment lies between two sets of rules in which both hold.
 */
export class PolicyTable {
  readonly #filter: Filter;
  readonly #limits: EgressLimits;
  /** Outlive the guests: a sandbox that was paused comes back as another one. */
  readonly #tokens = new TokenTables();
  readonly #guests = new Map<string, Guest>();

  constructor(filter: Filter, limits: EgressLimits) {
    this.#filter = filter;
    this.#limits = limits;
  }

  get size(): number {
    return this.#guests.size;
  }

  guests(): Iterable<Guest> {
    return this.#guests.values();
  }

  /** The guest behind a source address; undefined when nobody was admitted with it. */
  at(address: string | undefined): Guest | undefined {
    return address === undefined ? undefined : this.#guests.get(address);
  }

  /** @throws Error when the packet filter cannot follow; the guest is then not admitted any more. */
  admit(entry: EgressEntry): void {
    const known = this.#guests.get(entry.address);
    if (known !== undefined && known.id !== entry.sandboxId) this.expel(entry.address);
    const guest = this.#guests.get(entry.address) ?? new Guest(entry, this.#limits, this.#tokens);
    try {
      guest.inspect(entry.inspection);
      guest.rule(entry.policy);
      guest.seclude(entry.secluded === true);
      this.#filter.admit(guest.source, guest.shape, guest.names.addresses((name) => guest.mayResolve(name)));
      this.#guests.set(guest.address, guest);
    } catch (reason) {
      this.#guests.delete(guest.address);
      guest.end();
      this.#filter.expel(guest.source);
      throw reason;
    }
  }

  expel(address: string): void {
    const guest = this.#guests.get(address);
    if (guest === undefined) return;
    this.#guests.delete(address);
    guest.end();
    this.#filter.expel(guest.source);
  }

  /** Makes these the only entries. @returns Addresses whose entry could not be put in force, with the reason; they reach nothing. */
  replace(entries: readonly EgressEntry[]): { address: string; error: string }[] {
    const wanted = new Set(entries.map((entry) => entry.address));
    for (const address of this.#guests.keys()) if (!wanted.has(address)) this.expel(address);
    const failed: { address: string; error: string }[] = [];
    for (const entry of entries) {
      try {
        this.admit(entry);
      } catch (reason) {
        failed.push({ address: entry.address, error: (reason as Error).message });
      }
    }
    return failed;
  }

  /**
   * The address under which the guest reaches the name, open in the packet filter before it is returned.
   *
   * @returns null when all places are taken by names in use.
   */
  syntheticFor(guest: Guest, name: string): number | null {
    const place = guest.names.allocate(name, (candidate) => guest.uses(candidate));
    if (place === null) return null;
    // Also for a name it had before: a change of rules may have closed it, and the filter knows what it holds.
    if (!guest.gone) this.#filter.addSynthetic(guest.source, place.address, place.replaced);
    return place.address;
  }
}
