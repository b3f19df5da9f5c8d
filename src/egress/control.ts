import { chmodSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { ConnectionEvent, EgressEntry } from '../core/network/egress.ts';
import type { InspectionEvent } from '../core/network/inspection.ts';
import type { EventQueue, QueueReader } from './event-queue.ts';
import type { PolicyTable } from './table.ts';

/** Version of the protocol that this process speaks. */
export const controlVersion = 3;

/** A table of every sandbox of a large host, with a thousand rules each, is tens of megabytes. */
const longestLine = 128 * 1024 * 1024;
const mostServers = 16;

type Request = { readonly n: number } & (
  | { readonly op: 'hello'; readonly version: number; readonly events?: boolean }
  | { readonly op: 'admit'; readonly entry: EgressEntry }
  | { readonly op: 'expel'; readonly address: string }
  | { readonly op: 'table'; readonly entries: readonly EgressEntry[] }
  | { readonly op: 'stats' }
);

/** What happened, by the name under which it is told. */
interface Queues {
  readonly connections: EventQueue<ConnectionEvent>;
  readonly inspections: EventQueue<InspectionEvent>;
}

/** One server as the reader of each queue. */
type Readers = { readonly [K in keyof Queues]: QueueReader<unknown> };

interface Acknowledgement {
  readonly ack: number;
  readonly of: keyof Queues;
}

/**
 * What the server tells this process, one JSON object per line, over a Unix socket that only root can open:
 *
 *     → {"n":1,"op":"hello","version":3,"events":true}    ← {"n":1,"ok":true,"version":3,"pid":…,"admitted":…}
 *     → {"n":2,"op":"table","entries":[…]}                 ← {"n":2,"ok":true,"failed":[{"address":…,"error":…}]}
 *     → {"n":3,"op":"admit","entry":{…}}                   ← {"n":3,"ok":true}
 *     → {"n":4,"op":"expel","address":"10.0.0.6"}          ← {"n":4,"ok":true}
 *     → {"n":5,"op":"stats"}                               ← {"n":5,"ok":true,"connections":…, …}
 *     ← {"event":"connections","k":1,"items":[…],"dropped":0}    → {"ack":1,"of":"connections"}
 *     ← {"event":"inspections","k":1,"items":[…],"dropped":0}    → {"ack":1,"of":"inspections"}
 *
 * A request that cannot be carried out is answered `{"n":…,"error":"…"}`; after a failed `admit` the sandbox reaches nothing. Answers come
 * in the order of the requests, each when its effect is in force. Events go to the connection that asked for them last.
 */
export class ControlServer {
  readonly #table: PolicyTable;
  readonly #queues: Queues;
  readonly #stats: () => object;
  readonly #server: Server;
  readonly #connections = new Set<Socket>();

  constructor(table: PolicyTable, queues: Queues, stats: () => object) {
    this.#table = table;
    this.#queues = queues;
    this.#stats = stats;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  /** @throws Error when another process serves the socket already. */
  async listen(path: string): Promise<void> {
    if (await answers(path)) throw new Error(`Another egress proxy is running: it answers at ${path}.`);
    try {
      unlinkSync(path); // left by one that was killed
    } catch (reason) {
      if ((reason as NodeJS.ErrnoException).code !== 'ENOENT') throw reason;
    }
    const before = process.umask(0o177);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#server.on('error', reject);
        this.#server.listen(path, resolve);
      });
    } finally {
      process.umask(before);
    }
    chmodSync(path, 0o600);
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#connections) socket.destroy();
  }

  #serve(socket: Socket): void {
    if (this.#connections.size >= mostServers) {
      socket.destroy();
      return;
    }
    this.#connections.add(socket);
    const readerOf = (event: keyof Queues): QueueReader<unknown> => ({ deliver: (batch) => socket.write(`${JSON.stringify({ event, ...batch })}\n`) });
    const readers: Readers = { connections: readerOf('connections'), inspections: readerOf('inspections') };
    let chunks: Buffer[] = [];
    let size = 0;
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#connections.delete(socket);
      this.#queues.connections.detach(readers.connections);
      this.#queues.inspections.detach(readers.inspections);
    });
    socket.on('data', (chunk: Buffer) => {
      let rest = chunk;
      for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
        const line = Buffer.concat([...chunks, rest.subarray(0, end)]).toString();
        chunks = [];
        size = 0;
        rest = rest.subarray(end + 1);
        if (line !== '') this.#onLine(line, socket, readers);
      }
      if (rest.length === 0) return;
      chunks.push(rest);
      size += rest.length;
      if (size > longestLine) socket.destroy();
    });
  }

  #onLine(line: string, socket: Socket, readers: Readers): void {
    let request: Request | Acknowledgement;
    try {
      request = JSON.parse(line) as Request | Acknowledgement;
    } catch {
      socket.destroy();
      return;
    }
    if (!('op' in request)) return this.#queues[request.of === 'inspections' ? 'inspections' : 'connections'].acknowledge(readers[request.of], request.ack);
    let answer: object;
    try {
      answer = { n: request.n, ok: true, ...this.#carryOut(request, readers) };
    } catch (reason) {
      answer = { n: request.n, error: (reason as Error).message };
    }
    socket.write(`${JSON.stringify(answer)}\n`);
    return undefined;
  }

  #carryOut(request: Request, readers: Readers): object {
    switch (request.op) {
      case 'hello':
        if (request.version !== controlVersion) throw new Error(`This egress proxy speaks version ${controlVersion} of its protocol, not ${request.version}: restart it.`);
        // Behind the answer.
        if (request.events === true) {
          setImmediate(() => {
            this.#queues.connections.attach(readers.connections);
            this.#queues.inspections.attach(readers.inspections);
          });
        }
        return { version: controlVersion, pid: process.pid, admitted: this.#table.size };
      case 'admit':
        assertEntry(request.entry);
        this.#table.admit(request.entry);
        return {};
      case 'expel':
        this.#table.expel(request.address);
        return {};
      case 'table': {
        request.entries.forEach(assertEntry);
        return { failed: this.#table.replace(request.entries) };
      }
      case 'stats':
        return this.#stats();
      default:
        throw new Error(`This egress proxy knows no "${String((request as { op: unknown }).op)}".`);
    }
  }
}

/** The server is trusted; this finds one of another version before it does harm. */
function assertEntry(entry: EgressEntry): void {
  const fits = typeof entry?.sandboxId === 'string' && typeof entry.address === 'string' && Array.isArray(entry.policy?.allow) && Array.isArray(entry.policy.deny);
  if (!fits) throw new Error('The entry has no sandboxId, address or policy with allow and deny.');
  const known = new Set(['all', 'cidr', 'name', 'suffix', 'regex']);
  for (const rule of [...entry.policy.allow, ...entry.policy.deny]) if (!known.has(rule.kind)) throw new Error(`The entry has a rule of an unknown kind, "${String((rule as { kind: unknown }).kind)}".`);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
