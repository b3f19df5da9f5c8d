import { readFileSync } from 'node:fs';
import { createSecureContext, rootCertificates, type SecureContext, TLSSocket } from 'node:tls';
import { formatAddress } from '../../core/network/addresses.ts';
import type { Destination } from '../../core/network/decide.ts';
import type { Connection } from '../connection.ts';
import type { Dialler } from '../dial.ts';
import { assertAllowed, DialError, protocolFault } from '../faults.ts';
import type { Guest } from '../guest.ts';
import type { Answer, Exchanged, ExchangePlace } from '../http/exchange.ts';
import type { Front, Send } from '../http/front.ts';
import type { Http1Options } from '../http/http1-upstream.ts';
import type { Http1Server, Http1Session } from '../http/http1-front.ts';
import { serveHttp2 } from '../http/http2-front.ts';
import { answerBlocked, answerRefusal } from '../http/own-answers.ts';
import { readOpening } from '../opening.ts';
import { noStages, Refusal, type Stages } from '../pipeline/stage.ts';
import { pump } from '../splice.ts';
import { Origin, type OriginPlaces } from './origin.ts';

const handshakeMs = 15_000;
const idleMs = 120_000;
const mostOrigins = 512;
const mostExchanges = 512;
const serverFirstMs = 300;
const webProtocols = ['h2', 'http/1.1'];
const httpsPort = 443;

/** Whether a client that offers these protocols could speak HTTP. */
export function mayBeHttp(protocols: readonly string[] | null): boolean {
  return protocols === null || protocols.some((protocol) => webProtocols.includes(protocol) || protocol === 'http/1.0');
}

/** Certificates that servers are checked against: those that come with Node, and the operator's. @throws Error when the file cannot be read. */
export function trustedContext(extraCaFile: string | null): SecureContext {
  return createSecureContext({ ca: extraCaFile === null ? [...rootCertificates] : [...rootCertificates, readFileSync(extraCaFile, 'utf8')], minVersion: 'TLSv1.2' });
}

/** Opens TLS of guests with certificates of their sandboxes' own authorities, and speaks HTTP on both sides. */
export class Interception {
  readonly #http1: Http1Server;
  readonly #places: OriginPlaces;
  readonly #record: (guest: Guest) => ExchangePlace['record'];
  readonly #origins = new WeakMap<Guest, Map<string, Origin>>();

  constructor(http1: Http1Server, dialler: Dialler, trust: SecureContext, record: (guest: Guest) => ExchangePlace['record']) {
    this.#http1 = http1;
    this.#places = { dialler, trust };
    this.#record = record;
  }

  /** What is done about plain HTTP of the guest is told in the same way. */
  recorder(guest: Guest): ExchangePlace['record'] {
    return this.#record(guest);
  }

  /**
   * Takes over a connection whose first bytes are a ClientHello.
   *
   * @param destination Where it goes: the name that the guest believes to be connected to, with an address if that is what the rules allow.
   */
  async serve(connection: Connection, destination: Destination, protocols: readonly string[] | null): Promise<void> {
    const { guest, client } = connection;
    const { inspector } = guest;
    if (inspector === null) return void client.resetAndDestroy();
    const origin = this.#originOf(guest, destination);
    origin.warm(protocols?.includes('h2') === true);
    const context = await inspector.certificates.contextFor(hostOf(destination));
    if (client.destroyed) return undefined;
    client.allowHalfOpen = false; // in TLS an end is the end of both
    const socket = new TLSSocket(client, { isServer: true, secureContext: context, ALPNProtocols: webProtocols });
    socket.on('error', () => {}); // 'close' follows
    const timer = setTimeout(() => client.destroy(), handshakeMs);
    socket.on('close', () => {
      clearTimeout(timer);
      client.destroy();
    });
    socket.once('secure', () => {
      clearTimeout(timer);
      // What Node's own server does, and what its HTTP/2 waits for.
      (socket as { secureConnecting?: boolean }).secureConnecting = false;
      const place = new InterceptedPlace(connection, origin, this.#record(guest));
      connection.intercepted(() => origin.reached, destination);
      try {
        if (socket.alpnProtocol === 'h2') serveHttp2(socket, place);
        else (protocols === null ? this.#serveUnsaid(socket, place) : this.#serveHttp1(socket, place)).catch(() => client.destroy());
      } catch {
        client.destroy(); // it has gone meanwhile
      }
    });
    return undefined;
  }

  /** From the first byte on: a connection may be opened long before it is used. */
  async #serveHttp1(socket: TLSSocket, place: InterceptedPlace): Promise<void> {
    socket.setTimeout(idleMs, () => socket.destroy());
    const opening = await readOpening(socket);
    socket.setTimeout(0);
    if (socket.destroyed) return;
    if (opening.kind === 'broken') {
      place.onMalformed();
      socket.destroy();
    } else this.#http1.serve(socket, place);
  }

  /** A client that does not say what it speaks. What is not HTTP goes on as it is, to a server that was verified all the same. */
  async #serveUnsaid(socket: TLSSocket, place: InterceptedPlace): Promise<void> {
    const opening = readOpening(socket);
    const first = await Promise.race([opening, new Promise<null>((resolve) => setTimeout(resolve, serverFirstMs, null))]);
    if (first?.kind === 'http') return this.#http1.serve(socket, place);
    const refuse = (reason: string): void => {
      place.connection.note(place.origin.destination, protocolFault(reason), 'blocked');
      socket.destroy();
    };
    if (first?.kind === 'broken') return refuse(first.why);
    // In some protocols the server speaks first.
    let upstream: TLSSocket;
    try {
      upstream = await place.origin.connectRaw();
    } catch (reason) {
      place.connection.fail(place.origin.destination, (reason as Error).message);
      return undefined;
    }
    const spoke = Promise.withResolvers<'server'>();
    upstream.once('readable', () => spoke.resolve('server'));
    const said = first ?? (await Promise.race([opening, spoke.promise]));
    if (socket.destroyed) return void upstream.destroy();
    if (said !== 'server' && (said.kind === 'http' || said.kind === 'broken')) {
      upstream.destroy();
      return said.kind === 'http' ? this.#http1.serve(socket, place) : refuse(said.why);
    }
    upstream.removeAllListeners('readable');
    pump(upstream, socket);
    if (said !== 'server' && said.kind === 'whole') upstream.end(said.bytes);
    else pump(socket, upstream);
    return undefined;
  }

  #originOf(guest: Guest, destination: Destination): Origin {
    let origins = this.#origins.get(guest);
    if (origins === undefined) this.#origins.set(guest, (origins = new Map<string, Origin>()));
    const key = `${destination.name}|${destination.address}|${destination.port}`;
    const origin = origins.get(key) ?? new Origin(guest, destination, this.#places);
    origins.delete(key);
    origins.set(key, origin);
    if (origins.size > mostOrigins) for (const [old, candidate] of origins) if (candidate.idle) return origins.delete(old) ? origin : origin;
    return origin;
  }
}

/** One connection of a guest that was opened: every request on it is for one host. */
class InterceptedPlace implements ExchangePlace, Http1Session {
  readonly scheme = 'https';
  readonly place = this;
  readonly connection: Connection;
  readonly origin: Origin;
  readonly port: number;
  running = 0;
  readonly #record: ExchangePlace['record'];

  constructor(connection: Connection, origin: Origin, record: ExchangePlace['record']) {
    this.connection = connection;
    this.origin = origin;
    this.port = connection.destination.port;
    this.#record = record;
  }

  enter(): () => void {
    this.running++;
    this.connection.guest.exchanges++;
    return () => {
      this.running--;
      this.connection.guest.exchanges--;
    };
  }

  judge({ name, address }: Destination, named: number | null): void {
    const { destination, guest } = this.origin;
    const here = hostOf(destination);
    const same = destination.name === null ? name === null && address === destination.address : name === destination.name;
    if (!same) throw new Refusal(421, 'host_mismatch', `The request is for another host than ${here}, with which this connection was opened. Open one of its own for it.`);
    if ((named ?? httpsPort) !== this.port) throw new Refusal(421, 'host_mismatch', `The request is for port ${named ?? httpsPort} of ${here}, and this connection was opened to port ${this.port}.`);
    // Rules may have changed since the connection was opened.
    assertAllowed(guest, destination);
    if (guest.exchanges > mostExchanges) throw new Refusal(503, 'too_many_requests', `The sandbox has ${mostExchanges} requests under way, which is its limit.`);
  }

  stages(host: string): Stages {
    return this.connection.guest.inspector?.stages(host) ?? noStages;
  }

  send(_: Destination, http2: boolean): Send {
    return this.origin.send(http2);
  }

  http1(): Http1Options {
    return this.origin.http1;
  }

  refuse(front: Pick<Front, 'begin' | 'begun' | 'abort'>, destination: Destination | null, reason: unknown): Answer {
    const target = destination ?? this.origin.destination;
    if (reason instanceof DialError && reason.dialled.kind === 'blocked') {
      this.connection.note(reason.dialled.destination, reason.dialled.verdict, 'blocked');
      return answerBlocked(front, reason.dialled.destination, reason.dialled.verdict);
    }
    const refusal = reason instanceof Refusal ? reason : unreachable(hostOf(this.origin.destination), reason);
    if (refusal.verdict === 'failed') this.connection.note(target, { allowed: true, matchRule: 'default', rule: null, reason: refusal.message }, 'failed');
    return answerRefusal(front, refusal, target, this.port);
  }

  record(event: Exchanged, stages: Stages): void {
    this.#record(event, stages);
  }

  onMalformed(): void {
    this.connection.note(this.origin.destination, protocolFault('The HTTP request is malformed.'), 'blocked');
  }
}

function unreachable(host: string, reason: unknown): Refusal {
  if (reason instanceof DialError) return new Refusal(502, 'upstream_unreachable', reason.message, 'failed');
  const { code = '' } = reason as NodeJS.ErrnoException;
  // What the message would say could be a piece of it.
  if (code.startsWith('ERR_')) return new Refusal(502, 'upstream_message', `The HTTP message for or from ${host} cannot be passed on (${code}).`, 'failed');
  if (code.startsWith('HPE_')) return new Refusal(502, 'upstream_message', `The answer of ${host} is malformed (${code}).`, 'failed');
  return new Refusal(502, 'upstream_unreachable', `${host} broke off the connection before it had answered${code === '' ? '' : ` (${code})`}.`, 'failed');
}

function hostOf({ name, address }: Destination): string {
  return name ?? formatAddress(address ?? 0);
}

