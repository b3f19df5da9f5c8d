import type { Answer, DecodedPacket, RecordType, StringAnswer } from 'dns-packet';
import { parseIpv4 } from '../core/network/addresses.ts';
import { canonicalName } from '../core/network/names.ts';
import type { Upstream } from './dns-upstream.ts';

/** What a name stands for. Nothing is taken out: whoever uses the addresses judges them. */
export type Resolution =
  | { readonly kind: 'found'; readonly addresses: readonly number[]; readonly ttl: number }
  /** There is such a name, without an IPv4 address. */
  | { readonly kind: 'empty' }
  | { readonly kind: 'no-such-name' }
  | { readonly kind: 'failed'; readonly reason: string };

/** Records of other types, for a guest. */
export type Records = { readonly kind: 'found'; readonly answers: readonly Answer[] } | Exclude<Resolution, { kind: 'found' }>;

const mostCached = 16_384;
const mostAddresses = 32;
const mostInFlight = 2048;
const longestChain = 8;
const [shortestTtl, longestTtl, negativeTtl, failureTtl] = [5, 3600, 30, 1];
const deadlineMs = 8000;

/**
 * The resolver for everything that this process dials and answers: the addresses that a name was found to have, by the host's name
 * servers and nobody else. Answers are kept for as long as they say, at most an hour; equal questions at the same time are asked once.
 */
export class Resolver {
  readonly #upstream: Upstream;
  readonly #cache = new Map<string, { until: number; value: Resolution | Records }>();
  readonly #asking = new Map<string, Promise<Resolution | Records>>();

  constructor(upstream: Upstream) {
    this.#upstream = upstream;
  }

  /** IPv4 addresses of a canonical name, following its aliases. Never throws. */
  addresses(name: string): Promise<Resolution> {
    return this.#once(`A ${name}`, (signal) => this.#addresses(name, signal)) as Promise<Resolution>;
  }

  /** Records of a type that carries no addresses. Never throws. */
  records(name: string, type: RecordType): Promise<Records> {
    return this.#once(`${type} ${name}`, async (signal) => {
      const packet = await this.#upstream.ask(name, type, signal);
      if (isMissing(packet)) return { value: { kind: 'no-such-name' }, ttl: negativeTtl };
      const answers = (packet.answers ?? []).filter((answer) => answer.type === type || answer.type === 'CNAME').slice(0, 100);
      return answers.length === 0 ? { value: { kind: 'empty' }, ttl: negativeTtl } : { value: { kind: 'found', answers }, ttl: Math.min(...answers.map(ttlOf)) };
    }) as Promise<Records>;
  }

  async #addresses(name: string, signal: AbortSignal): Promise<{ value: Resolution; ttl: number }> {
    let current = name;
    let ttl = longestTtl;
    // An answer may hold the whole chain of aliases, or a part of it.
    for (let step = 0; step < longestChain; step++) {
      const packet = await this.#upstream.ask(current, 'A', signal);
      const followed = follow(packet.answers ?? [], current);
      ttl = Math.min(ttl, followed.ttl);
      if (followed.addresses.length > 0) return { value: { kind: 'found', addresses: followed.addresses, ttl: clampTtl(ttl) }, ttl };
      if (isMissing(packet)) return { value: { kind: 'no-such-name' }, ttl: negativeTtl };
      if (followed.name === null || followed.name === current) return { value: { kind: 'empty' }, ttl: negativeTtl };
      current = followed.name;
    }
    return { value: { kind: 'failed', reason: `${name} has too many aliases` }, ttl: negativeTtl };
  }

  #once(key: string, work: (signal: AbortSignal) => Promise<{ value: Resolution | Records; ttl: number }>): Promise<Resolution | Records> {
    const kept = this.#cache.get(key);
    if (kept !== undefined && kept.until > performance.now()) return Promise.resolve(kept.value);
    const running = this.#asking.get(key);
    if (running !== undefined) return running;
    if (this.#asking.size >= mostInFlight) return Promise.resolve({ kind: 'failed', reason: 'too many names are being resolved at once' });
    const asking = work(AbortSignal.timeout(deadlineMs))
      .catch((reason: unknown) => ({ value: { kind: 'failed' as const, reason: (reason as Error).name === 'TimeoutError' ? 'no name server answered' : (reason as Error).message }, ttl: failureTtl }))
      .then(({ value, ttl }) => {
        this.#asking.delete(key);
        this.#keep(key, value, value.kind === 'failed' ? failureTtl : clampTtl(ttl));
        return value;
      });
    this.#asking.set(key, asking);
    return asking;
  }

  #keep(key: string, value: Resolution | Records, ttl: number): void {
    this.#cache.delete(key);
    this.#cache.set(key, { until: performance.now() + ttl * 1000, value });
    if (this.#cache.size > mostCached) for (const oldest of this.#cache.keys()) {
      this.#cache.delete(oldest);
      break;
    }
  }
}

/** Goes along the aliases in one answer, in whatever order it has them, to the addresses or to the last alias. */
function follow(answers: readonly Answer[], from: string): { name: string | null; addresses: number[]; ttl: number } {
  let name: string | null = from;
  let ttl = longestTtl;
  for (let step = 0; step < longestChain && name !== null; step++) {
    const ofName = answers.filter((answer) => canonicalName(answer.name) === name);
    const addresses = ofName.flatMap((answer) => (answer.type === 'A' ? [parseIpv4(answer.data)] : [])).filter((address) => address !== null);
    if (addresses.length > 0) return { name, addresses: addresses.slice(0, mostAddresses), ttl: Math.min(ttl, ...ofName.map(ttlOf)) };
    const alias = ofName.find((answer): answer is StringAnswer => answer.type === 'CNAME');
    if (alias === undefined) return { name, addresses: [], ttl };
    ttl = Math.min(ttl, ttlOf(alias));
    name = canonicalName(alias.data);
  }
  return { name, addresses: [], ttl };
}

function isMissing(packet: DecodedPacket): boolean {
  return ((packet.flags ?? 0) & 15) === 3;
}

function ttlOf(answer: Answer): number {
  return 'ttl' in answer ? (answer.ttl ?? 0) : 0;
}

function clampTtl(ttl: number): number {
  return Math.min(longestTtl, Math.max(shortestTtl, ttl));
}
