import { createSocket, type RemoteInfo, type Socket as DatagramSocket } from 'node:dgram';
import { createServer, type Server, type Socket } from 'node:net';
import type { DecodedPacket } from 'dns-packet';
import type { ConnectionLog } from './connection-log.ts';
import { answerFor, bare, encodeAnswer, rcode, sizeLimit, type DnsAnswer, type DnsPlaces } from './dns-answer.ts';
import { decode } from './dns-upstream.ts';
import type { Guest } from './guest.ts';
import type { PolicyTable } from './table.ts';

/** Of one guest. */
const mostQuestionsAtOnce = 512;
const mostConnections = 32;
const idleMs = 10_000;

/** The name server of all guests, whatever server they believe to ask. */
export class DnsServer {
  readonly #table: PolicyTable;
  readonly #places: DnsPlaces;
  readonly #log: ConnectionLog;
  readonly #udp: DatagramSocket;
  readonly #tcp: Server;
  /** Questions that wait for an answer, and connections, by guest. */
  readonly #waiting = new WeakMap<Guest, number>();
  readonly #connections = new WeakMap<Guest, number>();
  readonly #sockets = new Set<Socket>();
  #closed = false;

  constructor(table: PolicyTable, places: DnsPlaces, log: ConnectionLog) {
    this.#table = table;
    this.#places = places;
    this.#log = log;
    this.#udp = createSocket('udp4');
    this.#udp.on('message', (bytes, from) => void this.#onDatagram(bytes, from).catch(ignoreMalformed));
    this.#udp.on('error', () => {}); // a guest that went away makes a send fail; nobody waits for it
    this.#tcp = createServer({ noDelay: true }, (socket) => this.#onConnection(socket));
    this.#tcp.on('error', () => {});
  }

  /** Serves on descriptors made in the gateway's namespace. */
  async listen(udpFd: number, tcpFd: number): Promise<void> {
    await new Promise<void>((resolve) => this.#udp.bind({ fd: udpFd, exclusive: true }, resolve));
    await new Promise<void>((resolve) => this.#tcp.listen({ fd: tcpFd }, resolve));
  }

  close(): void {
    this.#closed = true;
    this.#udp.close();
    this.#tcp.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  async #onDatagram(bytes: Buffer, from: RemoteInfo): Promise<void> {
    const guest = this.#table.at(from.address);
    const query = decode(bytes);
    if (query === null) return;
    // Asked of the process before this one: whoever asks is told to ask again, and does not wait.
    const answer = guest === undefined ? (query.flag_qr ? null : bare(rcode.serverFailure)) : await this.#answer(guest, query);
    if (answer === null || guest?.gone === true || this.#closed) return;
    this.#udp.send(encoded(query, answer, sizeLimit(query)), from.port, from.address, () => {});
  }

  #onConnection(socket: Socket): void {
    const guest = this.#table.at(socket.remoteAddress);
    const open = guest === undefined ? 0 : (this.#connections.get(guest) ?? 0);
    if (guest === undefined || open >= mostConnections) {
      socket.resetAndDestroy();
      return;
    }
    this.#connections.set(guest, open + 1);
    this.#sockets.add(socket);
    let pending: Buffer = Buffer.alloc(0);
    socket.setTimeout(idleMs, () => socket.destroy());
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#sockets.delete(socket);
      this.#connections.set(guest, (this.#connections.get(guest) ?? 1) - 1);
    });
    socket.on('data', (chunk: Buffer) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
      // One question after the other; the rest waits, in the kernel when there is much of it.
      socket.pause();
      void (async () => {
        while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
          const query = decode(pending.subarray(2, 2 + pending.readUInt16BE(0)));
          pending = pending.subarray(2 + pending.readUInt16BE(0));
          const answer = query === null ? null : await this.#answer(guest, query);
          if (query === null || answer === null || guest.gone || socket.destroyed) return socket.destroy();
          const message = encoded(query, answer, null);
          const length = Buffer.alloc(2);
          length.writeUInt16BE(message.length);
          socket.write(Buffer.concat([length, message]));
        }
        return socket.resume();
      })().catch(() => socket.destroy());
    });
  }

  /** Null: no answer at all. */
  async #answer(guest: Guest, query: DecodedPacket): Promise<DnsAnswer | null> {
    const [question, another] = query.questions ?? [];
    if (query.flag_qr || question === undefined || another !== undefined) return null;
    if ((((query.flags ?? 0) >> 11) & 15) !== 0) return bare(rcode.notImplemented);
    const waiting = this.#waiting.get(guest) ?? 0;
    if (!guest.questions.take() || waiting >= mostQuestionsAtOnce) return bare(rcode.refused);
    this.#waiting.set(guest, waiting + 1);
    try {
      const answer = await answerFor(guest, question, this.#places);
      if (answer.blocked !== undefined) this.#note(guest, answer.blocked);
      return answer;
    } catch {
      return bare(rcode.serverFailure); // the packet filter could not open the way
    } finally {
      this.#waiting.set(guest, (this.#waiting.get(guest) ?? 1) - 1);
    }
  }

  #note(guest: Guest, { name, address, verdict }: NonNullable<DnsAnswer['blocked']>): void {
    this.#log.recordRefusal({
      sandboxId: guest.id,
      at: Date.now(),
      host: name,
      address,
      port: 53,
      protocol: 'dns',
      verdict: 'blocked',
      matchRule: verdict.matchRule,
      rule: verdict.rule,
      reason: verdict.reason,
      bytesSent: 0,
      bytesReceived: 0,
      durationMs: 0,
      count: 1,
    });
  }
}

/** Records that came from outside may be of a kind that cannot be written again. */
function encoded(query: DecodedPacket, answer: DnsAnswer, limit: number | null): Buffer {
  try {
    return encodeAnswer(query, answer, limit);
  } catch {
    return encodeAnswer(query, bare(rcode.serverFailure), limit);
  }
}

/** A question whose name cannot be written again gets no answer, like any other message that is none. */
function ignoreMalformed(): void {}
