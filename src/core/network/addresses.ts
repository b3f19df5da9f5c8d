/** A block of IPv4 addresses; `base` has no bit set outside the prefix. */
export interface Cidr {
  /** Unsigned 32 bits. */
  readonly base: number;
  readonly prefix: number;
}

/** An address in whatever spelling. For IPv6, `embedded` is the IPv4 address inside it, if its form carries one. */
export type Address = { readonly family: 4; readonly address: number } | { readonly family: 6; readonly embedded: number | null };

/**
 * What no rule can open: everything that is not a host of the public internet, where a sandbox would find its host's neighbours,
 * its host itself, or a cloud's metadata. IANA's registry of special-purpose addresses (RFC 6890) and two clouds' own.
 */
const neverReachable: readonly { readonly cidr: string; readonly what: string }[] = [
  { cidr: '0.0.0.0/8', what: 'this host' },
  { cidr: '10.0.0.0/8', what: 'private' },
  { cidr: '100.64.0.0/10', what: 'shared by carriers' }, // Alibaba's metadata, 100.100.100.200, is in it
  { cidr: '127.0.0.0/8', what: 'loopback' },
  { cidr: '169.254.0.0/16', what: 'link-local, where clouds keep their metadata' },
  { cidr: '172.16.0.0/12', what: 'private' },
  { cidr: '192.0.0.0/24', what: 'reserved for protocols' }, // Oracle's metadata, 192.0.0.192, is in it
  { cidr: '192.88.99.0/24', what: 'a retired relay of IPv6' },
  { cidr: '192.168.0.0/16', what: 'private' },
  { cidr: '198.18.0.0/15', what: 'reserved for measurements' }, // the resolver's synthetic addresses are in it
  { cidr: '168.63.129.16/32', what: "Azure's metadata" },
  { cidr: '224.0.0.0/4', what: 'multicast' },
  { cidr: '240.0.0.0/4', what: 'reserved' },
];

const neverRanges = neverReachable.map(({ cidr, what }) => {
  const [base = '', prefix] = cidr.split('/');
  return Object.freeze({ base: parseIpv4(base) ?? 0, prefix: Number(prefix), what });
});

/** The ranges that `whyNeverReachable` knows, for the packet filter. */
export const neverReachableCidrs: readonly Cidr[] = Object.freeze(neverRanges.map(({ base, prefix }) => Object.freeze({ base, prefix })));

/** What the address is instead of a host of the public internet; null when it is one. */
export function whyNeverReachable(address: number): string | null {
  return neverRanges.find((range) => contains(range, address))?.what ?? null;
}

export function isNeverReachable(address: number): boolean {
  return whyNeverReachable(address) !== null;
}

export function contains(cidr: Cidr, address: number): boolean {
  return networkOf(address, cidr.prefix) === cidr.base;
}

/** The address with the bits outside the prefix cut off. */
export function networkOf(address: number, prefix: number): number {
  return prefix === 0 ? 0 : (address & (0xffff_ffff << (32 - prefix))) >>> 0;
}

/** Without those that lie in another one, in ascending order: what is left does not overlap. */
export function disjoint(cidrs: readonly Cidr[]): readonly Cidr[] {
  const kept: Cidr[] = [];
  for (const { base, prefix } of [...cidrs].sort((a, b) => a.base - b.base || a.prefix - b.prefix)) {
    const last = kept.at(-1);
    if (last === undefined || !contains(last, base)) kept.push(Object.freeze({ base, prefix }));
  }
  return Object.freeze(kept);
}

export function formatAddress(address: number): string {
  return toBytes(address).join('.');
}

export function formatCidr({ base, prefix }: Cidr): string {
  return `${formatAddress(base)}/${prefix}`;
}

/** Four decimal numbers without leading zeros: the only spelling that every program reads alike. Null for any other. */
export function parseIpv4(text: string): number | null {
  const match = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/.exec(text);
  const bytes = match?.slice(1).map(Number) ?? [];
  return match === null || bytes.some((byte) => byte > 255) ? null : fromBytes(bytes);
}

/**
 * The address that a text spells for some program or other, null when it spells none: decimal (`2130706433`), short (`127.1`), octal
 * (`0177.0.0.1`), hexadecimal (`0x7f.1`), with or without a final dot, as `inet_aton` and the WHATWG URL standard read them; IPv6 in
 * brackets or not, with a zone or not.
 */
export function parseAddress(text: string): Address | null {
  const address = parseLooseIpv4(text);
  if (address !== null) return { family: 4, address };
  const bytes = parseIpv6(text.replace(/^\[(.*)\]$/s, '$1').replace(/%.*$/s, ''));
  return bytes === null ? null : { family: 6, embedded: embeddedIpv4(bytes) };
}

/** Whether resolvers take the text for an address, or a broken one, rather than for a name: its last label is a number. */
export function endsInNumber(text: string): boolean {
  return /(^|\.)(\d+|0x[0-9a-f]*)\.?$/i.test(text);
}

function parseLooseIpv4(text: string): number | null {
  const parts = text.replace(/\.$/, '').split('.');
  if (parts.length > 4) return null;
  const numbers = parts.map((part) => (/^0x[0-9a-f]*$/i.test(part) ? parseInt(part.slice(2) || '0', 16) : /^0[0-7]*$/.test(part) ? parseInt(part, 8) : /^[1-9]\d*$/.test(part) ? Number(part) : NaN));
  const last = numbers.pop() ?? NaN;
  // The last number fills all bytes that the others leave; NaN fails every comparison.
  if (!numbers.every((number) => number <= 255) || !(last < 256 ** (4 - numbers.length))) return null;
  return numbers.reduce((sum, number, i) => sum + number * 256 ** (3 - i), last);
}

function parseIpv6(text: string): readonly number[] | null {
  if (!/^[0-9a-f:.]{2,45}$/i.test(text) || !text.includes(':')) return null;
  const halves = text.split('::');
  if (halves.length > 2) return null;
  const [head, tail] = [halves[0] ?? '', halves[1]].map((half, i, all) => (half === undefined ? [] : hextets(half, i === 1 || all[1] === undefined)));
  if (head == null || tail == null) return null;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 2) return null;
  return [...head, ...Array.from({ length: missing }, () => 0), ...tail];
}

/** The bytes of groups between colons; an IPv4 address may stand for the last two. */
function hextets(text: string, isLast: boolean): readonly number[] | null {
  if (text === '') return [];
  const bytes: number[] = [];
  const groups = text.split(':');
  for (const [i, group] of groups.entries()) {
    const dotted = isLast && i === groups.length - 1 ? parseIpv4(group) : null;
    if (dotted !== null) bytes.push(...toBytes(dotted));
    else if (/^[0-9a-f]{1,4}$/i.test(group)) bytes.push(parseInt(group, 16) >> 8, parseInt(group, 16) & 255);
    else return null;
  }
  return bytes;
}

/** Where the forms that stand for an IPv4 host keep its address: a translator or tunnel would send packets there. */
function embeddedIpv4(bytes: readonly number[]): number | null {
  const startsWith = (...prefix: readonly number[]): boolean => prefix.every((byte, i) => bytes[i] === byte);
  const zeros = (count: number): number[] => Array.from({ length: count }, () => 0);
  const at = (offset: number): number => fromBytes(bytes.slice(offset, offset + 4));
  if (startsWith(...zeros(10), 0xff, 0xff)) return at(12); // mapped, RFC 4291
  if (startsWith(...zeros(8), 0xff, 0xff, 0, 0)) return at(12); // translated, RFC 2765
  if (startsWith(...zeros(12))) return at(12); // compatible, RFC 4291; `::` and `::1` are among them
  if (startsWith(0, 0x64, 0xff, 0x9b)) return at(12); // NAT64, RFC 6052 and RFC 8215
  if (startsWith(0x20, 0x02)) return at(2); // 6to4, RFC 3056
  if (startsWith(0x20, 0x01, 0, 0)) return (~at(12)) >>> 0; // Teredo, RFC 4380: the client's address, inverted
  if (bytes[8] === 0 || bytes[8] === 2) return bytes[9] === 0 && bytes[10] === 0x5e && bytes[11] === 0xfe ? at(12) : null; // ISATAP, RFC 5214
  return null;
}

function toBytes(address: number): number[] {
  return [address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255];
}

function fromBytes(bytes: readonly number[]): number {
  return bytes.reduce((sum, byte) => sum * 256 + byte, 0);
}
