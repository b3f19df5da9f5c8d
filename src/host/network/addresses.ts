import { formatAddress } from '../../core/network/addresses.ts';

/** An IPv4 network, parsed once. */
export class Subnet {
  /** First address as a number. */
  readonly base: number;
  readonly prefix: number;

  private constructor(base: number, prefix: number) {
    this.base = base;
    this.prefix = prefix;
  }

  /** `a.b.c.d[/n]`; null when it is not an IPv4 network. Host bits are cut off. */
  static parse(text: string): Subnet | null {
    const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:\/(\d{1,2}))?$/.exec(text);
    if (match === null) return null;
    const parts = match.slice(1, 5).map(Number);
    const prefix = match[5] === undefined ? 32 : Number(match[5]);
    if (parts.some((part) => part > 255) || prefix > 32) return null;
    const address = parts.reduce((sum, part) => sum * 256 + part, 0);
    const size = 2 ** (32 - prefix);
    return new Subnet(address - (address % size), prefix);
  }

  get size(): number {
    return 2 ** (32 - this.prefix);
  }

  get text(): string {
    return `${formatAddress(this.base)}/${this.prefix}`;
  }

  overlaps(other: Subnet): boolean {
    return this.base < other.base + other.size && other.base < this.base + this.size;
  }
}

/** A network that is large enough for slots and small enough to be one machine's: /16 to /24. */
export function parseSubnet(text: string): Subnet | null {
  const subnet = Subnet.parse(text);
  return subnet !== null && subnet.prefix >= 16 && subnet.prefix <= 24 ? subnet : null;
}

/** The addresses of one link of four: slot 0 is the link between host and gateway, slots from 1 are guests'. */
export interface LinkAddresses {
  /** The side of the gateway (for link 0: of the host). */
  readonly near: string;
  /** The side of the guest (for link 0: of the gateway). */
  readonly far: string;
}

export function linkAddresses(subnet: Subnet, slot: number): LinkAddresses {
  const base = subnet.base + slot * 4;
  if (slot < 0 || slot >= slotCapacity(subnet) + 1) throw new RangeError(`slot ${slot} is outside ${subnet.text}`);
  return { near: formatAddress(base + 1), far: formatAddress(base + 2) };
}

/** How many guests a range has addresses for. */
export function slotCapacity(subnet: Subnet): number {
  return subnet.size / 4 - 1;
}
