import { once } from 'node:events';
import { Agent } from 'node:http';
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2';
import { checkServerIdentity, connect as connectTls, type SecureContext, type TLSSocket } from 'node:tls';
import { formatAddress } from '../../core/network/addresses.ts';
import type { Destination, Verdict } from '../../core/network/decide.ts';
import type { Dialler } from '../dial.ts';
import { DialError } from '../faults.ts';
import type { Flow, Guest } from '../guest.ts';
import type { Send, UpstreamExchange } from '../http/front.ts';
import { type Http1Options, sendHttp1 } from '../http/http1-upstream.ts';
import { RefusedStream, sendHttp2 } from '../http/http2-upstream.ts';
import { Refusal } from '../pipeline/stage.ts';

const mostConnections = 128;
const mostIdle = 16;
/** Servers close what is idle after five seconds or more; a request into a connection that is just being closed is lost. */
const idleMs = 4000;
const handshakeMs = 10_000;

/** Who opens connections for guests, and whom it believes. */
export interface OriginPlaces {
  readonly dialler: Dialler;
  /** With the authorities that certificates of servers are checked against. */
  readonly trust: SecureContext;
}

/** One server as one sandbox uses it: connections that its requests share, verified for its name. */
export class Origin {
  readonly guest: Guest;
  readonly destination: Destination;
  readonly #places: OriginPlaces;
  readonly #agent: Agent;
  #session: Promise<ClientHttp2Session | TLSSocket> | null = null;
  /** Opened ahead for HTTP/1, or found to speak nothing else. */
  readonly #spares: Promise<TLSSocket>[] = [];
  readonly #open = new Set<TLSSocket>();
  /** The address that was connected to last. */
  reached: { readonly destination: Destination; readonly verdict: Verdict } | null = null;

  constructor(guest: Guest, destination: Destination, places: OriginPlaces) {
    this.guest = guest;
    this.destination = destination;
    this.#places = places;
    this.#agent = new Agent({ keepAlive: true, maxSockets: mostConnections, maxFreeSockets: mostIdle, timeout: idleMs, scheduling: 'lifo' });
    this.#agent.createConnection = (_, callback) => {
      void (this.#takeSpare() ?? this.#connect(['http/1.1'])).then(
        (socket) => callback?.(null, socket),
        (reason: Error) => callback?.(reason, null as never),
      );
      return undefined;
    };
  }

  /** Whether nothing is open to it. */
  get idle(): boolean {
    return this.#open.size === 0 && this.#spares.length === 0 && this.#session === null;
  }

  get http1(): Http1Options {
    return { agent: this.#agent, pool: 'origin', place: {} };
  }

  /** Opens a connection for a request that is likely to come. */
  warm(http2: boolean): void {
    if (http2) void this.#http2().catch(() => {});
    else if (this.#spares.length === 0 && Object.keys(this.#agent.freeSockets).length === 0) this.#keepSpare(this.#connect(['http/1.1']));
  }

  send(http2: boolean): Send {
    return async (head, hasBody, onContinue) => {
      const session = http2 ? await this.#http2() : null;
      if (session === null) return sendHttp1(head, hasBody, onContinue, this.http1);
      const exchange = sendHttp2(session, head, hasBody, onContinue);
      return hasBody ? exchange : repeated(exchange, async () => {
        const another = await this.#http2();
        return another === null || another === session ? null : sendHttp2(another, head, false, onContinue);
      });
    };
  }

  /** A connection for what is not HTTP. */
  connectRaw(): Promise<TLSSocket> {
    return this.#connect(null);
  }

  /** The session that requests over HTTP/2 share; null when the server does not speak it. */
  async #http2(): Promise<ClientHttp2Session | null> {
    const session = await (this.#session ??= this.#openSession());
    if (!('request' in session)) return null;
    if (!session.closed && !session.destroyed) return session;
    this.#session = null;
    return this.#http2();
  }

  async #openSession(): Promise<ClientHttp2Session | TLSSocket> {
    try {
      const socket = await this.#connect(['h2', 'http/1.1']);
      if (socket.alpnProtocol !== 'h2') {
        // Remembered while this connection lives.
        socket.on('close', () => (this.#session = null));
        this.#keepSpare(Promise.resolve(socket));
        return socket;
      }
      const session = connectHttp2(`https://${this.destination.name ?? formatAddress(this.destination.address ?? 0)}`, {
        createConnection: () => socket,
        settings: { enablePush: false, initialWindowSize: 1 << 20, maxHeaderListSize: 65_536 },
        maxSessionMemory: 32,
        ...({ strictSingleValueFields: false } as object),
      });
      session.on('error', () => {});
      session.on('close', () => (this.#session = null));
      session.setTimeout(60_000, () => session.close());
      return session;
    } catch (reason) {
      this.#session = null;
      throw reason;
    }
  }

  #keepSpare(opening: Promise<TLSSocket>): void {
    this.#spares.push(opening);
    const drop = (): void => {
      const at = this.#spares.indexOf(opening);
      if (at >= 0) this.#spares.splice(at, 1);
    };
    void this.#watchSpare(opening, drop);
  }

  async #watchSpare(opening: Promise<TLSSocket>, drop: () => void): Promise<void> {
    try {
      const socket = await opening;
      socket.on('close', drop);
      setTimeout(() => {
        if (!this.#spares.includes(opening)) return;
        drop();
        socket.destroy();
      }, idleMs);
    } catch {
      // A failure that a request is about to ask for is told to it.
      setTimeout(drop, 1000);
    }
  }

  #takeSpare(): Promise<TLSSocket> | undefined {
    return this.#spares.shift();
  }

  /** @throws DialError, or Refusal when the server is not who it should be. */
  async #connect(protocols: string[] | null): Promise<TLSSocket> {
    const deadline = AbortSignal.timeout(handshakeMs * 2);
    const dialled = await this.#places.dialler.dial(this.guest, this.destination, deadline);
    if (dialled.kind !== 'connected') throw new DialError(dialled);
    this.reached = { destination: dialled.destination, verdict: dialled.verdict };
    const name = this.destination.name;
    const host = name ?? formatAddress(this.destination.address ?? 0);
    dialled.socket.allowHalfOpen = false;
    dialled.socket.on('error', () => {}); // TLS over it is told
    const socket = connectTls({
      socket: dialled.socket,
      ...(name === null ? { host } : { servername: name }),
      secureContext: this.#places.trust,
      minVersion: 'TLSv1.2',
      rejectUnauthorized: true,
      checkServerIdentity: (_, certificate) => checkServerIdentity(host, certificate),
      ...(protocols === null ? {} : { ALPNProtocols: protocols }),
    });
    socket.on('error', () => {}); // 'close' follows
    const flow: Flow = { destinations: () => [{ ...dialled.destination, name }], cut: () => socket.destroy() };
    this.guest.flows.add(flow);
    this.#open.add(socket);
    socket.on('close', () => {
      this.guest.flows.delete(flow);
      this.#open.delete(socket);
      dialled.socket.destroy();
    });
    try {
      await once(socket, 'secureConnect', { signal: AbortSignal.any([deadline, AbortSignal.timeout(handshakeMs)]) });
      return socket;
    } catch (reason) {
      socket.destroy();
      throw tlsFault(host, reason as NodeJS.ErrnoException);
    }
  }
}

/** What the server has refused unread, as it does with what crosses its goodbye, is sent once more over another session (RFC 9113 section 8.7). */
function repeated(first: UpstreamExchange, again: () => Promise<UpstreamExchange | null>): UpstreamExchange {
  let current = first;
  let destroyed = false;
  const reply = first.reply.catch(async (reason: unknown) => {
    const next = destroyed || !(reason instanceof RefusedStream) ? null : await again();
    if (next === null) throw reason;
    current = next;
    if (destroyed) next.destroy();
    return next.reply;
  });
  reply.catch(() => {});
  const destroy = (): void => {
    destroyed = true;
    current.destroy();
  };
  return { sink: first.sink, reply, destroy };
}

/** A handshake that failed, in words. Nothing weaker is tried. */
function tlsFault(host: string, { code = '', message, name }: NodeJS.ErrnoException): Refusal {
  if (name === 'AbortError' || name === 'TimeoutError') return new Refusal(504, 'upstream_timeout', `${host} did not finish the TLS handshake in time.`, 'failed');
  const aboutCertificate = /CERT|SELF_SIGNED|UNABLE_TO|ALTNAME|CRL|HOSTNAME/.test(code);
  if (aboutCertificate) return new Refusal(502, 'upstream_certificate', `The certificate of ${host} is not valid: ${message} (${code}). For an authority of your own set PADDOCK_EXTRA_CA_FILE on the server.`, 'failed');
  return new Refusal(502, 'upstream_tls', `The TLS handshake with ${host} failed: ${message}.`, 'failed');
}
