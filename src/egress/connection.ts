import type { Socket } from 'node:net';
import { formatAddress, parseIpv4 } from '../core/network/addresses.ts';
import type { Destination, Verdict } from '../core/network/decide.ts';
import type { ConnectionVerdict } from '../core/network/egress.ts';
import { blockedPage } from './http/blocked-page.ts';
import type { ConnectionLog } from './connection-log.ts';
import type { Dialled, Dialler } from './dial.ts';
import { protocolFault } from './faults.ts';
import type { Flow, Guest } from './guest.ts';
import type { Http1Server } from './http/http1-front.ts';
import { PlainPlace } from './http/plain-place.ts';
import { namedHost, readOpening, type Opening } from './opening.ts';
import { type Intake, pump } from './splice.ts';
import { type Interception, mayBeHttp } from './tls/interception.ts';

export interface ConnectionPlaces {
  readonly dialler: Dialler;
  readonly log: ConnectionLog;
  readonly http: Http1Server;
  readonly interception: Interception;
}

/** How long a client whose first destination is out of reach may take to name another one. */
const secondThoughtMs = 1000;
/** How long a client whose TLS may have to be opened is waited for, before it is taken for one whose server speaks first. */
const clientFirstMs = 300;

interface Reached {
  readonly destination: Destination;
  readonly verdict: Verdict;
}

type Hello = Extract<Opening, { kind: 'tls' }>;

/**
 * One connection of a guest, from the moment it is accepted. Its destination is parsed once: the name, if the guest connected to an
 * address that stands for one, else the address. What the first bytes name is judged before any of them is passed on.
 */
export class Connection implements Flow {
  readonly guest: Guest;
  readonly client: Socket;
  /** Where the guest believes to be connected to. */
  readonly destination: Destination;
  readonly #places: ConnectionPlaces;
  readonly #startedAt = Date.now();
  readonly #aborted = new AbortController();
  /** What is open on behalf of it, with the facts for the log. */
  readonly #upstreams = new Map<Socket, { destination: Destination; verdict: Verdict; at: number; host: string | null }>();
  /** Where its TLS was opened: the server that its requests go to, once one has. */
  #intercepted: { readonly destination: Destination; readonly reached: () => Reached | null; readonly at: number } | null = null;
  #cutBy: Verdict | null = null;
  #opening: Promise<Opening> | null = null;
  #refused = false;

  constructor(guest: Guest, client: Socket, places: ConnectionPlaces) {
    const literal = parseIpv4(client.localAddress ?? '');
    const name = literal === null ? null : guest.names.nameOf(literal);
    this.guest = guest;
    this.client = client;
    this.destination = { name, address: name === null ? literal : null, port: client.localPort ?? 0 };
    this.#places = places;
    if (name !== null) guest.names.touch(name);
    guest.flows.add(this);
    client.on('error', () => {}); // 'close' follows
    client.on('close', () => this.#end());
    client.setKeepAlive(true, 60_000);
  }

  destinations(): readonly Destination[] {
    const opened = this.#intercepted === null ? [] : [this.#intercepted.destination, this.#intercepted.reached()?.destination ?? this.destination];
    return [this.destination, ...opened, ...[...this.#upstreams.values()].map(({ destination, host }) => (destination.name === null && host !== null ? { ...destination, name: host } : destination))];
  }

  cut(verdict: Verdict): void {
    if (this.#cutBy !== null) return;
    this.#cutBy = verdict;
    if (this.#upstreams.size === 0 && this.#intercepted === null && !verdict.allowed) this.note(this.destination, verdict, 'blocked');
    for (const socket of this.#upstreams.keys()) socket.resetAndDestroy();
    this.client.resetAndDestroy();
  }

  /** Serves the connection. Never throws. */
  async serve(): Promise<void> {
    try {
      const verdict = this.#places.dialler.judge(this.guest, this.destination);
      if (!verdict.allowed) await this.refuse(this.destination, verdict);
      else if (!this.guest.namesMatter) await this.#splice();
      // An address that a rule allows as an address is reached whatever name is spoken to it.
      else await this.#judgeOpening(verdict.matchRule === 'cidr');
    } catch (reason) {
      this.fail(this.destination, `The proxy failed: ${(reason as Error).message}`);
    }
  }

  /** Dials, and counts what was opened as part of this connection. */
  async dial(destination: Destination, raw = false): Promise<Dialled> {
    const at = Date.now();
    const dialled = await this.#places.dialler.dial(this.guest, destination, this.#aborted.signal, raw);
    if (dialled.kind !== 'connected') return dialled;
    const { socket } = dialled;
    if (this.client.destroyed) {
      socket.destroy();
      return { ...dialled, kind: 'failed', reason: 'The sandbox gave up the connection.' };
    }
    this.#upstreams.set(socket, { destination: dialled.destination, verdict: dialled.verdict, at, host: dialled.destination.name });
    socket.on('error', () => {}); // 'close' follows
    socket.on('close', () => this.#noteClosed(socket));
    return dialled;
  }

  /** Refuses for a rule: in words if the client speaks HTTP, else with a reset. */
  async refuse(destination: Destination, verdict: Verdict): Promise<void> {
    this.note(destination, verdict, 'blocked');
    this.#refused = true;
    // Of all others a reset says more than silence until they have spoken.
    if (this.#opening === null && destination.port === 80) this.#opening = readOpening(this.client, secondThoughtMs);
    if (this.#opening === null) return void this.client.resetAndDestroy();
    const opening = await Promise.race([this.#opening, wait(secondThoughtMs)]);
    if (opening?.kind === 'http' && !this.client.destroyed) return blockedPage(this.client, destination, verdict);
    return void this.client.resetAndDestroy();
  }

  /** A reset: the destination cannot be reached, which an orderly end would hide. */
  fail(destination: Destination, reason: string, verdict?: Verdict): void {
    if (!this.client.destroyed && this.#cutBy === null) this.note(destination, { allowed: true, matchRule: 'default', rule: null, ...verdict, reason }, 'failed');
    this.client.resetAndDestroy();
  }

  note(destination: Destination, verdict: Verdict, outcome: ConnectionVerdict, traffic = { sent: 0, received: 0, at: this.#startedAt, host: destination.name }): void {
    const refusal = outcome === 'blocked' && traffic.sent + traffic.received === 0;
    this.#places.log[refusal ? 'recordRefusal' : 'record']({
      sandboxId: this.guest.id,
      at: traffic.at,
      host: traffic.host,
      address: destination.address === null ? null : formatAddress(destination.address),
      port: destination.port,
      protocol: 'tcp',
      verdict: outcome,
      matchRule: verdict.matchRule,
      rule: verdict.rule,
      reason: verdict.reason,
      bytesSent: traffic.sent,
      bytesReceived: traffic.received,
      durationMs: Date.now() - traffic.at,
      count: 1,
    });
  }

  /** No rule is about names: bytes are passed on as they come. */
  async #splice(): Promise<void> {
    const dialled = await this.dial(this.destination, true);
    if (dialled.kind !== 'connected') return this.#giveUp(dialled);
    const { socket, intake } = dialled;
    this.client.once('data', (chunk: Buffer) => {
      const facts = this.#upstreams.get(socket);
      if (facts !== undefined) facts.host ??= namedHost(chunk);
    });
    pump(socket, this.client, intake);
    pump(this.client, socket);
    return undefined;
  }

  /** The destination is dialled at once, since in some protocols the server speaks first; what the client says first decides whether it stays. */
  async #judgeOpening(pinned: boolean): Promise<void> {
    const serverSpoke = Promise.withResolvers<void>();
    const opening = (this.#opening = readOpening(this.client, undefined, serverSpoke.promise));
    if (this.guest.inspector !== null) {
      const first = await Promise.race([opening, wait(clientFirstMs)]);
      if (first?.kind === 'tls' && this.#mustOpen(first)) return this.#intercept(first, pinned);
    }
    // Where HTTP is likely the socket may be needed for requests.
    const dialling = this.dial(this.destination, this.destination.port !== 80);
    const early = await Promise.race([dialling, opening.then(() => null)]);
    const unpump = early?.kind === 'connected' ? pump(early.socket, this.client, early.intake) : () => {};
    if (early?.kind === 'connected') onFirst(early, serverSpoke.resolve);
    if (early !== null && early.kind !== 'connected' && (await Promise.race([opening, wait(secondThoughtMs)])) === null) return this.#giveUp(early);
    const said = await opening;
    if (this.client.destroyed || this.#refused) return undefined;
    if (said.kind === 'broken') return this.refuse(this.destination, protocolFault(said.why));
    const another = said.kind === 'tls' && said.serverName !== null && said.serverName !== this.destination.name && !pinned ? said.serverName : null;
    if (said.kind === 'tls' && this.#mustOpen(said)) {
      const unwanted = await dialling;
      unpump();
      if (unwanted.kind === 'connected') {
        if (unwanted.socket.bytesRead > 0) return this.refuse(this.destination, protocolFault('The server spoke before a ClientHello that must be answered for it.'));
        this.#upstreams.delete(unwanted.socket);
        unwanted.socket.destroy();
      }
      return this.#intercept(said, pinned);
    }
    if (said.kind === 'http' && (!pinned || this.guest.inspector !== null)) {
      // The server has not spoken, as it does not in HTTP; a request to another host leaves this socket unused.
      const spoken = early?.kind === 'connected' && early.socket.bytesRead > 0;
      if (spoken) return this.refuse(this.destination, protocolFault('The server spoke before the HTTP request.'));
      unpump();
      return this.#places.http.serve(this.client, new PlainPlace(this, dialling, pinned, this.#places.interception.recorder(this.guest)));
    }
    let dialled: Dialled;
    if (another === null) {
      dialled = await dialling;
      if (said.kind === 'tls' && dialled.kind === 'connected') this.#nameUpstream(dialled.socket, said.serverName);
    } else {
      // Judged first: the guest gets no connection for a name that it may not reach.
      const verdict = this.guest.decide({ name: another, address: null, port: this.destination.port });
      if (!verdict.allowed) return this.refuse({ name: another, address: null, port: this.destination.port }, verdict);
      const unwanted = await dialling;
      if (unwanted.kind === 'connected') {
        if (unwanted.socket.bytesRead > 0) return this.refuse(this.destination, protocolFault('The server spoke before a ClientHello for another host.'));
        unpump();
        this.#upstreams.delete(unwanted.socket);
        unwanted.socket.destroy();
      }
      dialled = await this.dial({ name: another, address: null, port: this.destination.port }, true);
    }
    if (dialled.kind !== 'connected') return this.#giveUp(dialled);
    if (dialled !== early) pump(dialled.socket, this.client, dialled.intake);
    if (said.kind === 'whole') dialled.socket.end(said.bytes);
    else pump(this.client, dialled.socket);
    return undefined;
  }

  /** Whether requests in this TLS have to be seen. */
  #mustOpen({ serverName, protocols }: Hello): boolean {
    const { inspector } = this.guest;
    return inspector !== null && mayBeHttp(protocols) && [serverName, this.destination.name].some((name) => inspector.opens(name, this.destination.port));
  }

  async #intercept({ serverName, protocols }: Hello, pinned: boolean): Promise<void> {
    const { name, address, port } = this.destination;
    if (name !== null && serverName !== null && serverName !== name) {
      return this.refuse(this.destination, protocolFault(`The connection is to ${name}, and its TLS names ${serverName}: which of the two is meant cannot be told.`));
    }
    const named = name ?? serverName;
    const destination = { name: named, address: named === null || (pinned && name === null) ? address : null, port };
    const verdict = this.guest.decide(destination);
    if (!verdict.allowed) return this.refuse(destination, verdict);
    return this.#places.interception.serve(this, destination, protocols);
  }

  /** Its TLS is open. @param reached tells the address that requests went to, when they have. */
  intercepted(reached: () => Reached | null, destination: Destination): void {
    this.#intercepted = { destination, reached, at: Date.now() };
  }

  #noteIntercepted(): void {
    const reached = this.#intercepted?.reached() ?? null;
    if (this.#intercepted === null || reached === null) return;
    const traffic = { sent: this.client.bytesRead, received: this.client.bytesWritten, at: this.#intercepted.at, host: this.#intercepted.destination.name };
    if (this.#cutBy === null || this.#cutBy.allowed) this.note(reached.destination, reached.verdict, 'allowed', traffic);
    else this.note(reached.destination, this.#cutBy, 'blocked', traffic);
  }

  #giveUp(dialled: Exclude<Dialled, { kind: 'connected' }>): void | Promise<void> {
    if (dialled.kind === 'blocked') return this.refuse(dialled.destination, dialled.verdict);
    return this.fail(dialled.destination, dialled.reason, dialled.verdict);
  }

  #nameUpstream(socket: Socket, host: string | null): void {
    const facts = this.#upstreams.get(socket);
    if (facts !== undefined) facts.host ??= host;
  }

  #noteClosed(socket: Socket): void {
    const facts = this.#upstreams.get(socket);
    if (facts === undefined) return;
    this.#upstreams.delete(socket);
    const traffic = { sent: socket.bytesWritten, received: socket.bytesRead, at: facts.at, host: facts.host };
    if (this.#cutBy === null || this.#cutBy.allowed) this.note(facts.destination, facts.verdict, 'allowed', traffic);
    else this.note(facts.destination, this.#cutBy, 'blocked', traffic);
  }

  #end(): void {
    this.guest.flows.delete(this);
    this.#noteIntercepted();
    this.#aborted.abort();
    for (const socket of this.#upstreams.keys()) if (!socket.writableEnded || !this.client.readableEnded) socket.destroy();
  }
}

/** Calls back when the server has said something that is being passed on. */
function onFirst({ socket, intake }: { socket: Socket; intake: Intake | null }, callback: () => void): void {
  if (intake === null) {
    socket.once('data', callback);
    return;
  }
  const { take } = intake;
  intake.take = (chunk) => {
    intake.take = take;
    callback();
    return take(chunk);
  };
}

function wait(ms: number): Promise<null> {
  return new Promise((resolve) => setTimeout(resolve, ms, null));
}
