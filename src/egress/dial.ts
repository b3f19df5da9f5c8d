import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { formatAddress } from '../core/network/addresses.ts';
import type { Destination, Verdict } from '../core/network/decide.ts';
import type { Guest } from './guest.ts';
import type { OwnAddresses } from './own-addresses.ts';
import type { Resolver } from './resolver.ts';
import { Intake } from './splice.ts';
import type { UpstreamProxy } from './upstream-proxy.ts';

/** How a dial ended. `destination.address` is the one that was dialled or judged last; null when the name has none. */
export type Dialled =
  | { readonly kind: 'connected'; readonly socket: Socket; /** Not null: the socket has no 'data' events, `pump` needs this. */ readonly intake: Intake | null; readonly destination: Destination; readonly verdict: Verdict }
  | { readonly kind: 'blocked'; readonly destination: Destination; readonly verdict: Verdict }
  | { readonly kind: 'failed'; readonly destination: Destination; readonly verdict: Verdict; readonly reason: string };

const longestDialMs = 10_000;
/** For each address but the last, when a name has several. */
const longestAttemptMs = 3000;
const mostAttempts = 4;

/** Connects the host to where a guest may go. The only place of the process that opens connections for guests. */
export class Dialler {
  readonly #resolver: Resolver;
  readonly #own: OwnAddresses;
  readonly #proxy: UpstreamProxy | null;

  constructor(resolver: Resolver, own: OwnAddresses, proxy: UpstreamProxy | null) {
    this.#resolver = resolver;
    this.#own = own;
    this.#proxy = proxy;
  }

  /** The verdict about an address that is known. The host's own addresses are as closed as private ones. */
  judge(guest: Guest, destination: Destination): Verdict {
    if (destination.address !== null && this.#own.current().has(destination.address)) {
      return { allowed: false, matchRule: 'internal-ip', rule: null, reason: `${destination.name ?? formatAddress(destination.address)} is the sandbox's own host; no rule can open it.` };
    }
    return guest.decide(destination);
  }

  /**
   * Resolves a name that has no address yet, judges every address, and dials those that are allowed: the very address that was judged. Never
   * throws. With `raw` the connection may come with an intake, for one that is spliced whatever is said on it.
   */
  async dial(guest: Guest, destination: Destination, signal: AbortSignal, raw = false): Promise<Dialled> {
    const verdict = this.judge(guest, destination);
    if (!verdict.allowed) return { kind: 'blocked', destination, verdict };
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(longestDialMs)]);
    if (destination.address !== null) return this.#attempt(guest, destination, deadline, raw);
    const found = await this.#resolver.addresses(destination.name ?? '');
    if (found.kind !== 'found') {
      return { kind: 'failed', destination, verdict, reason: `${destination.name} could not be resolved: ${found.kind === 'failed' ? found.reason : found.kind === 'empty' ? 'it has no IPv4 address' : 'there is no such name'}.` };
    }
    const places = found.addresses.map((address) => ({ ...destination, address }));
    const allowed = places.filter((place) => this.judge(guest, place).allowed).slice(0, mostAttempts);
    if (allowed.length === 0) return { kind: 'blocked', destination: places[0]!, verdict: this.judge(guest, places[0]!) };
    let last: Dialled | null = null;
    for (const [i, place] of allowed.entries()) {
      last = await this.#attempt(guest, place, i === allowed.length - 1 ? deadline : AbortSignal.any([deadline, AbortSignal.timeout(longestAttemptMs)]), raw);
      if (last.kind === 'connected' || deadline.aborted) break;
    }
    return last!;
  }

  async #attempt(guest: Guest, destination: Destination, signal: AbortSignal, raw: boolean): Promise<Dialled> {
    // Again: rules may have changed while another address was tried.
    const verdict = this.judge(guest, destination);
    if (!verdict.allowed) return { kind: 'blocked', destination, verdict };
    const address = formatAddress(destination.address ?? 0);
    try {
      const intake = raw && this.#proxy === null ? new Intake() : null;
      const socket = this.#proxy === null ? await connected(address, destination.port, signal, intake) : await this.#proxy.connect(address, destination.port, signal);
      const after = this.judge(guest, destination);
      if (after.allowed && !signal.aborted) return { kind: 'connected', socket, intake, destination, verdict: after };
      socket.destroy();
      if (after.allowed) return { kind: 'failed', destination, verdict, reason: 'The connection was given up.' };
      return { kind: 'blocked', destination, verdict: after };
    } catch (reason) {
      return { kind: 'failed', destination, verdict, reason: `${destination.name === null ? address : `${destination.name} (${address})`} could not be reached: ${describeFault(reason)}.` };
    }
  }
}

async function connected(host: string, port: number, signal: AbortSignal, intake: Intake | null): Promise<Socket> {
  const socket = connect({ host, port, allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000, ...(intake === null ? {} : { onread: intake }) });
  try {
    await once(socket, 'connect', { signal });
    return socket;
  } catch (reason) {
    socket.on('error', () => {});
    socket.destroy();
    throw reason;
  }
}

function describeFault(reason: unknown): string {
  const { code, name, message } = reason as NodeJS.ErrnoException;
  if (name === 'TimeoutError' || name === 'AbortError') return 'no answer in time';
  switch (code) {
    case 'ECONNREFUSED':
      return 'it refused the connection';
    case 'ECONNRESET':
      return 'it reset the connection';
    case 'ENETUNREACH':
    case 'EHOSTUNREACH':
      return 'there is no way to it';
    case 'ETIMEDOUT':
      return 'no answer in time';
    default:
      return message;
  }
}
