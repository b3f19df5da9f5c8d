import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { connect as connectTls, rootCertificates } from 'node:tls';
import { formatAddress, parseIpv4, whyNeverReachable } from '../../../core/network/addresses.ts';
import { BuildFailure } from '../../../core/templates/build-host.ts';
import { untilAborted } from '../../until-aborted.ts';
import { type Endpoint, formatEndpoint, sameEndpoint } from './endpoint.ts';

/** The company's proxy: opens connections to addresses. */
export interface Uplink {
  connect(address: string, port: number, signal: AbortSignal): Promise<Socket>;
}

export interface ConnectorOptions {
  /** Those that may be at addresses of this network, or spoken to in the clear. */
  readonly internal: readonly Endpoint[];
  /** For addresses of the internet; null: they are dialled. */
  readonly uplink: Uplink | null;
  /** PEM file with certificates that are trusted as well. */
  readonly extraCaFile: string | null;
  /** IPv4 addresses of a name. Default: as this machine resolves names. */
  readonly resolve?: (name: string) => Promise<readonly string[]>;
}

const longestConnectMs = 15_000;
const longestAttemptMs = 5000;
const mostAttempts = 4;

/**
 * Opens the connections that images are fetched through: to addresses of the public internet, and to those registries that the operator has
 * named. A team chooses what host is asked, so this must not lead to what only this machine can reach.
 */
export class Connector {
  readonly #internal: readonly Endpoint[];
  readonly #uplink: Uplink | null;
  readonly #ca: string[] | undefined;
  readonly #resolve: (name: string) => Promise<readonly string[]>;

  /** @throws Error when the file cannot be read */
  constructor({ internal, uplink, extraCaFile, resolve = systemAddresses }: ConnectorOptions) {
    this.#internal = internal;
    this.#uplink = uplink;
    this.#ca = extraCaFile === null ? undefined : [...rootCertificates, readFileSync(extraCaFile, 'utf8')];
    this.#resolve = resolve;
  }

  isInternal(endpoint: Endpoint): boolean {
    return this.#internal.some((each) => sameEndpoint(each, endpoint));
  }

  /**
   * A connection, with TLS established if the endpoint is secure.
   *
   * @throws BuildFailure when no connection may be made; other errors when none could be
   */
  async connect(endpoint: Endpoint, signal: AbortSignal): Promise<Socket> {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(longestConnectMs)]);
    const addresses = await this.#addresses(endpoint, deadline);
    let last: unknown = null;
    for (const [i, address] of addresses.entries()) {
      const attempt = i === addresses.length - 1 ? deadline : AbortSignal.any([deadline, AbortSignal.timeout(longestAttemptMs)]);
      try {
        const socket = await this.#dial(address, endpoint.port, attempt);
        return endpoint.secure ? await this.#secure(socket, endpoint.host, attempt) : socket;
      } catch (reason) {
        last = reason;
        if (deadline.aborted) break;
      }
    }
    throw last;
  }

  /** Resolved once, judged, and dialled as they are. */
  async #addresses(endpoint: Endpoint, signal: AbortSignal): Promise<readonly number[]> {
    const { host } = endpoint;
    const literal = parseIpv4(host);
    const found = literal === null ? (await untilAborted(this.#resolve(host), signal)).map(parseIpv4).filter((address) => address !== null) : [literal];
    if (found.length === 0) throw new Error(`${host} has no IPv4 address`);
    if (this.isInternal(endpoint)) return found.slice(0, mostAttempts);
    if (!endpoint.secure) throw new BuildFailure('image_pull_failed', `${formatEndpoint(endpoint)} would be asked over plain http: the operator has to name it, http:// included, in PADDOCK_INTERNAL_REGISTRIES`);
    const own = ownAddresses();
    const why = (address: number): string | null => (own.has(address) ? "this machine's own" : whyNeverReachable(address));
    const open = found.filter((address) => why(address) === null);
    if (open.length > 0) return open.slice(0, mostAttempts);
    const [first = 0] = found;
    throw new BuildFailure(
      'image_pull_failed',
      `${formatEndpoint(endpoint)} is at ${formatAddress(first)}, an address that is not of the internet (${why(first)}): the operator can allow it with PADDOCK_INTERNAL_REGISTRIES`,
    );
  }

  #dial(address: number, port: number, signal: AbortSignal): Promise<Socket> {
    const text = formatAddress(address);
    // The proxy is for the internet; what is inside is reached from inside.
    if (this.#uplink !== null && whyNeverReachable(address) === null) return this.#uplink.connect(text, port, signal);
    return established(connect({ host: text, port, noDelay: true }), 'connect', signal);
  }

  #secure(socket: Socket, host: string, signal: AbortSignal): Promise<Socket> {
    const named = parseIpv4(host) === null ? { servername: host } : {};
    const tls = connectTls({ socket, host, ...named, ALPNProtocols: ['http/1.1'], minVersion: 'TLSv1.2', ...(this.#ca === undefined ? {} : { ca: this.#ca }) });
    return established(tls, 'secureConnect', signal);
  }
}

async function established(socket: Socket, event: string, signal: AbortSignal): Promise<Socket> {
  try {
    await once(socket, event, { signal });
    return socket;
  } catch (reason) {
    socket.on('error', () => {});
    socket.destroy();
    throw reason;
  }
}

async function systemAddresses(name: string): Promise<readonly string[]> {
  return (await lookup(name, { all: true, family: 4 })).map(({ address }) => address);
}

function ownAddresses(): ReadonlySet<number | null> {
  return new Set(Object.values(networkInterfaces()).flatMap((all) => (all ?? []).map(({ address }) => parseIpv4(address))));
}
