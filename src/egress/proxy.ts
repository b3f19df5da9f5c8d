import { createServer, type Server, type Socket } from 'node:net';
import { Connection, type ConnectionPlaces } from './connection.ts';
import { protocolFault } from './faults.ts';
import type { EgressLimits } from './settings.ts';
import type { PolicyTable } from './table.ts';

/** Connections that the kernel has taken and this process has not. */
const backlog = 4096;

/** Takes the connections of all guests, each with the guest's address as its source and the destination it wanted as its local address. */
export class TransparentProxy {
  readonly #table: PolicyTable;
  readonly #places: ConnectionPlaces;
  readonly #limits: EgressLimits;
  readonly #server: Server;
  readonly #clients = new Set<Socket>();

  constructor(table: PolicyTable, places: ConnectionPlaces, limits: EgressLimits) {
    this.#table = table;
    this.#places = places;
    this.#limits = limits;
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (client) => this.#accept(client));
    this.#server.on('error', () => {}); // one connection could not be accepted; the next may
  }

  get open(): number {
    return this.#clients.size;
  }

  /** Serves on a descriptor made in the gateway's namespace. */
  listen(fd: number): Promise<void> {
    // The backlog is an argument of its own: beside a descriptor Node ignores it among the options.
    return new Promise((resolve) => this.#server.listen({ fd }, backlog as never, resolve as never));
  }

  close(): void {
    this.#server.close();
    for (const client of this.#clients) client.resetAndDestroy();
  }

  #accept(client: Socket): void {
    const guest = this.#table.at(client.remoteAddress);
    if (guest === undefined) {
      client.resetAndDestroy();
      return;
    }
    const mine = guest.flows.size >= this.#limits.connectionsPerSandbox;
    if (mine || this.#clients.size >= this.#limits.connections) {
      const connection = new Connection(guest, client, this.#places);
      const reason = mine ? `The sandbox has ${this.#limits.connectionsPerSandbox} connections open, which is its limit.` : 'All sandboxes together have as many connections open as the host allows.';
      connection.cut(protocolFault(reason));
      return;
    }
    this.#clients.add(client);
    client.on('close', () => this.#clients.delete(client));
    void new Connection(guest, client, this.#places).serve();
  }
}
