import { Agent } from 'node:http';
import type { Socket } from 'node:net';
import { formatAddress } from '../../core/network/addresses.ts';
import type { Destination } from '../../core/network/decide.ts';
import type { Connection } from '../connection.ts';
import type { Dialled } from '../dial.ts';
import { assertAllowed, DialError, protocolFault } from '../faults.ts';
import { noStages, Refusal, type Stages } from '../pipeline/stage.ts';
import type { Answer, Exchanged, ExchangePlace } from './exchange.ts';
import type { Front, Send } from './front.ts';
import type { Http1Session } from './http1-front.ts';
import { type Http1Options, sendHttp1 } from './http1-upstream.ts';
import { answerBlocked, answerRefusal } from './own-answers.ts';

/** One client's connection over which plain HTTP is spoken, and the connections to servers that its requests share. */
export class PlainPlace implements ExchangePlace, Http1Session {
  readonly scheme = 'http';
  readonly place = this;
  readonly connection: Connection;
  readonly port: number;
  running = 0;
  readonly #agent: Agent;
  readonly #record: ExchangePlace['record'];
  readonly #pinned: boolean;
  #first: Promise<Dialled> | null;

  /**
   * @param dialling The connection to the client's first destination, for the first request that wants it.
   * @param pinned Whether requests go to the connection's address whatever host they name.
   */
  constructor(connection: Connection, dialling: Promise<Dialled>, pinned: boolean, record: ExchangePlace['record']) {
    this.connection = connection;
    this.port = connection.destination.port;
    this.#first = dialling;
    this.#pinned = pinned && connection.destination.address !== null;
    this.#record = record;
    this.#agent = new Agent({ keepAlive: true, maxSockets: 1, maxTotalSockets: 8, timeout: 0 });
    // Keyed by the host of the options; `destination` comes along.
    this.#agent.createConnection = (options, callback) => {
      void this.#connect((options as unknown as { destination: Destination }).destination).then(
        (socket) => callback?.(null, socket),
        (reason: Error) => callback?.(reason, null as never),
      );
      return undefined;
    };
    connection.client.on('close', () => this.#agent.destroy());
  }

  enter(): () => void {
    this.running++;
    return () => this.running--;
  }

  judge(destination: Destination): void {
    assertAllowed(this.connection.guest, this.#placeOf(destination));
  }

  stages(host: string): Stages {
    return this.connection.guest.inspector?.stages(host) ?? noStages;
  }

  send(destination: Destination): Send {
    return (head, hasBody, onContinue) => Promise.resolve(sendHttp1(head, hasBody, onContinue, this.http1(destination)));
  }

  http1(destination: Destination): Http1Options {
    const pool = this.#pinned ? 'pinned' : (destination.name ?? formatAddress(destination.address ?? 0));
    return { agent: this.#agent, pool, place: { destination: this.#placeOf(destination) } };
  }

  #placeOf(destination: Destination): Destination {
    return this.#pinned ? { ...destination, address: this.connection.destination.address } : destination;
  }

  refuse(front: Pick<Front, 'begin' | 'begun' | 'abort'>, destination: Destination | null, reason: unknown): Answer {
    const { connection } = this;
    if (reason instanceof Refusal) {
      connection.note(destination ?? connection.destination, protocolFault(reason.message), reason.verdict);
      return answerRefusal(front, reason, destination, this.port);
    }
    if (reason instanceof DialError && reason.dialled.kind === 'blocked') {
      connection.note(reason.dialled.destination, reason.dialled.verdict, 'blocked');
      return answerBlocked(front, reason.dialled.destination, reason.dialled.verdict);
    }
    if (reason instanceof DialError && reason.dialled.kind === 'failed') connection.fail(reason.dialled.destination, reason.dialled.reason, reason.dialled.verdict);
    // Messages that Node's parser takes and its writer does not, such as an answer with the status 099.
    else if (String((reason as NodeJS.ErrnoException).code).startsWith('ERR_')) connection.fail(destination ?? connection.destination, `The HTTP message cannot be passed on: ${(reason as Error).message}.`);
    else connection.client.resetAndDestroy();
    return { status: null, verdict: 'failed', code: 'upstream_unreachable', reason: reason instanceof DialError ? reason.message : 'The server broke off the connection.' };
  }

  record(event: Exchanged, stages: Stages): void {
    if (stages.outbound.length > 0) this.#record(event, stages);
  }

  onMalformed(): void {
    this.connection.note(this.connection.destination, protocolFault('The HTTP request is malformed.'), 'blocked');
  }

  async #connect(destination: Destination): Promise<Socket> {
    const first = this.#first;
    this.#first = null;
    let dialled = first === null ? null : await first;
    const same = this.#pinned || (this.connection.destination.name === destination.name && (destination.name !== null || this.connection.destination.address === destination.address));
    const fits = dialled !== null && same && (dialled.kind !== 'connected' || dialled.intake === null);
    if (!fits && dialled?.kind === 'connected') dialled.socket.destroy();
    if (dialled === null || !fits || (dialled.kind === 'connected' && dialled.socket.destroyed)) dialled = await this.connection.dial(destination);
    if (dialled.kind !== 'connected') throw new DialError(dialled);
    const { socket } = dialled;
    socket.allowHalfOpen = false;
    socket.resume();
    // A server that ends an idle connection ends the client's, which would otherwise send into the void.
    socket.on('close', () => {
      if (this.running === 0 && !this.connection.client.destroyed) this.connection.client.end();
    });
    return socket;
  }
}
