import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from 'node:http';
import { createServer as createPlainServer, type AddressInfo, type Server as PlainServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { inRequest, requestId } from './request-context.ts';

/** What a server can be doing: looking for what an earlier run has left, serving, or ending. */
export type Readiness = 'recovering' | 'ready' | 'draining';

/** Who answers once there is something to answer with. */
export interface Household {
  handle(request: IncomingMessage, response: ServerResponse): void;
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** Whether somebody here speaks the protocol that the request asks for; otherwise it is answered as any other. */
  upgrades(request: IncomingMessage): boolean;
}

/** Hosts of programs inside sandboxes, in every wire: what is asked of them is never answered by the server itself. */
const sandboxHost = /^\d{1,5}-/;

/**
 * The port. Open before the sandboxes have been found again, so that a probe can tell a server that recovers from one that is not there;
 * until somebody is at home everything but `/health` is 503, which clients repeat.
 */
export class FrontDoor {
  readonly server: Server;
  readonly #version: string;
  /** Where `localhost` has two addresses, the second one. */
  #beside: PlainServer | null = null;
  #household: Household | null = null;
  #readiness: Readiness = 'recovering';

  constructor(version: string, options: ServerOptions = {}) {
    this.#version = version;
    this.server = createServer({ ...options, shouldUpgradeCallback: (request) => this.#household?.upgrades(request) ?? false }, (request, response) =>
      inRequest(() => (this.#household === null ? this.#answer(request, response) : this.#household.handle(request, response))),
    );
    this.server.on('upgrade', (request: IncomingMessage, socket, head) => inRequest(() => this.#household?.upgrade(request, socket, head)));
  }

  get readiness(): Readiness {
    return this.#readiness;
  }

  /** From now on requests are answered. */
  admit(household: Household): void {
    this.#household = household;
    this.#readiness = 'ready';
  }

  /** Resolves to the origin under which it is reached. */
  async listen(host: string, port: number): Promise<string> {
    await listening(this.server, host === 'localhost' ? '127.0.0.1' : host, port);
    const { address, port: chosen, family } = this.server.address() as AddressInfo;
    if (host === 'localhost') {
      const beside = createPlainServer((socket) => this.server.emit('connection', socket));
      // Machines without IPv6 have one address only.
      this.#beside = await listening(beside, '::1', chosen).then(() => beside, () => null);
    }
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${chosen}`;
  }

  /** Takes no new connection from now on, and says so to those who ask. Resolves when the last one has ended. */
  async close(): Promise<void> {
    this.#readiness = 'draining';
    this.#beside?.close();
    if (!this.server.listening) return;
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    this.server.closeIdleConnections();
    await closed;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const alive = request.url === '/health' && !sandboxHost.test(request.headers.host ?? '');
    const message = 'the server is starting; try again in a moment';
    // Every wire finds its own fields in it.
    const body = alive ? { status: 'ok', version: this.#version } : { status: this.#readiness, message, code: 'no_capacity', error: { code: 'service_unavailable', message } };
    const text = JSON.stringify(body);
    response.writeHead(alive ? 200 : 503, {
      'content-type': 'application/json; charset=utf-8',
      'content-length': Buffer.byteLength(text),
      'x-request-id': requestId() ?? '-',
      ...(alive ? {} : { 'retry-after': '1', connection: 'close' }),
    });
    response.end(text);
  }
}

function listening(server: PlainServer, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
}
