import dns, { type Answer, type DecodedPacket, type Question, type RecordType } from 'dns-packet';
import { formatAddress, isNeverReachable, parseIpv4 } from '../core/network/addresses.ts';
import type { Verdict } from '../core/network/decide.ts';
import { canonicalName } from '../core/network/names.ts';
import type { Guest } from './guest.ts';
import type { Resolver } from './resolver.ts';

/** Response codes (RFC 1035). */
export const rcode = Object.freeze({ ok: 0, serverFailure: 2, noSuchName: 3, notImplemented: 4, refused: 5 });

/** What a guest is told. `blocked` is there when a rule kept the answer from it, for the log. */
export interface DnsAnswer {
  readonly code: number;
  readonly answers: readonly Answer[];
  /** Extended error (RFC 8914) with a text that a human reads in `dig`. */
  readonly extended?: { readonly code: number; readonly text: string };
  readonly blocked?: { readonly name: string; readonly address: string | null; readonly verdict: Verdict };
}

export interface DnsPlaces {
  readonly resolver: Resolver;
  /** Whether an address is the host's own. */
  isOwn(address: number): boolean;
  /** The address under which a guest reaches a name, in force in the packet filter; null when it has too many. */
  syntheticFor(guest: Guest, name: string): number | null;
}

const syntheticTtl = 60;
const [extendedBlocked, extendedProhibited] = [15, 18];
/** Names of the network that the host is in, which are nobody else's business (RFC 6761, 6762, 8375; `internal` by ICANN). */
const localSuffixes = ['local', 'localhost', 'internal', 'home.arpa'];
const refusedTypes = new Set<string>(['ANY', 'AXFR', 'IXFR', 'MAILA', 'MAILB', 'OPT', 'TSIG', 'TKEY', 'SIG']);
/** IPv6 addresses, and what leads clients to addresses, to other ports and to encrypted names past the A record. */
const emptyTypes = new Set<string>(['AAAA', 'A6', 'HTTPS', 'SVCB', 'UNKNOWN_64', 'UNKNOWN_65']);

/** The answer to one question of a guest. Nothing about a name that its rules do not let it reach leaves the host. Never throws. */
export async function answerFor(guest: Guest, question: Question, places: DnsPlaces): Promise<DnsAnswer> {
  if (question.class !== 'IN' || refusedTypes.has(question.type)) return bare(rcode.refused);
  const name = canonicalName(question.name);
  if (name === null) return bare(rcode.noSuchName);
  const verdict = guest.decide({ name, address: null, port: 53 });
  if (!verdict.allowed) return notTold(name, verdict);
  if (isLocal(name) && verdict.matchRule !== 'domain') return { ...bare(rcode.noSuchName), extended: { code: extendedProhibited, text: `${name} is a name of the local network.` } };
  if (emptyTypes.has(question.type)) return bare(rcode.ok);
  if (question.type !== 'A') return recordsOf(name, question.type, places);
  const found = await places.resolver.addresses(name);
  if (found.kind !== 'found') return failure(found);
  // The rules may have changed meanwhile.
  const later = guest.decide({ name, address: null, port: 53 });
  if (!later.allowed) return notTold(name, later);
  const visible = found.addresses.filter((address) => !isNeverReachable(address) && !places.isOwn(address));
  const [hidden] = found.addresses;
  if (visible.length === 0 && hidden !== undefined) {
    const internal: Verdict = { allowed: false, matchRule: 'internal-ip', rule: null, reason: `${name} has only addresses that are not on the public internet; no rule can open them.` };
    return { code: rcode.ok, answers: [], extended: { code: extendedBlocked, text: internal.reason }, blocked: { name, address: formatAddress(hidden), verdict: internal } };
  }
  // An address that the rules deny is told as it is: the packet filter refuses it before the handshake.
  if (!guest.namesMatter || !visible.some((address) => guest.decide({ name, address, port: 0 }).allowed)) {
    return { code: rcode.ok, answers: visible.map((address) => a(question.name, address, found.ttl)) };
  }
  const synthetic = places.syntheticFor(guest, name);
  if (synthetic === null) return { ...bare(rcode.serverFailure), extended: { code: extendedProhibited, text: 'The sandbox holds connections to too many names.' } };
  return { code: rcode.ok, answers: [a(question.name, synthetic, Math.min(syntheticTtl, found.ttl))] };
}

async function recordsOf(name: string, type: RecordType, { resolver }: DnsPlaces): Promise<DnsAnswer> {
  if (name.endsWith('.arpa') && !isPublicReverse(name)) return bare(rcode.noSuchName);
  const found = await resolver.records(name, type);
  return found.kind === 'found' ? { code: rcode.ok, answers: found.answers } : failure(found);
}

/**
 * The message for an answer. Over UDP it is cut to what the guest takes, so that it asks again over TCP.
 *
 * @param limit Bytes; null over TCP.
 */
export function encodeAnswer(query: DecodedPacket, answer: DnsAnswer, limit: number | null): Buffer {
  const extended = query.additionals?.some((record) => record.type === 'OPT') === true;
  const flags = dns.RECURSION_AVAILABLE | ((query.flags ?? 0) & dns.RECURSION_DESIRED);
  const whole = message(flags | answer.code, answer.answers);
  return limit === null || whole.length <= limit ? whole : message(flags | answer.code | dns.TRUNCATED_RESPONSE, []);

  function message(flags: number, answers: readonly Answer[]): Buffer {
    return dns.encode({ type: 'response', id: query.id ?? 0, flags, questions: (query.questions ?? []).slice(0, 1), answers: [...answers], additionals: extended ? [opt(answer.extended)] : [] });
  }
}

/** How much a guest takes over UDP: what it says, between 512 and what fits every path (RFC 9715). */
export function sizeLimit(query: DecodedPacket): number {
  const opt = query.additionals?.find((record) => record.type === 'OPT');
  return Math.min(1232, Math.max(512, opt !== undefined && 'udpPayloadSize' in opt ? opt.udpPayloadSize : 512));
}

export function bare(code: number): DnsAnswer {
  return { code, answers: [] };
}

function notTold(name: string, verdict: Verdict): DnsAnswer {
  return { ...bare(rcode.noSuchName), extended: { code: extendedBlocked, text: verdict.reason }, blocked: { name, address: null, verdict } };
}

function failure(found: { kind: 'empty' | 'no-such-name' | 'failed' }): DnsAnswer {
  return bare(found.kind === 'empty' ? rcode.ok : found.kind === 'no-such-name' ? rcode.noSuchName : rcode.serverFailure);
}

function isLocal(name: string): boolean {
  return !name.includes('.') || localSuffixes.some((suffix) => name.endsWith(`.${suffix}`));
}

/** Of names for addresses, only those of public IPv4 addresses: the others are names of the host's own network. */
function isPublicReverse(name: string): boolean {
  const match = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\.in-addr\.arpa$/.exec(name);
  const address = match === null ? null : parseIpv4(match.slice(1, 5).reverse().join('.'));
  return address !== null && !isNeverReachable(address);
}

function a(name: string, address: number, ttl: number): Answer {
  return { type: 'A', class: 'IN', name, ttl, data: formatAddress(address) };
}

function opt(extended: DnsAnswer['extended']): Answer {
  const options = extended === undefined ? [] : [{ code: 15, data: Buffer.concat([Buffer.from([0, extended.code]), Buffer.from(extended.text.slice(0, 200))]) }];
  return { type: 'OPT', name: '.', udpPayloadSize: 1232, extendedRcode: 0, ednsVersion: 0, flags: 0, flag_do: false, options } as unknown as Answer;
}
