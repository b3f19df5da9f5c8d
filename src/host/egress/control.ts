import { connect, type Socket } from 'node:net';
import type { ConnectionEvent, EgressEntry } from '../../core/network/egress.ts';
import type { InspectionEvent } from '../../core/network/inspection.ts';

/** Version of the control protocol that this server speaks. */
export const controlVersion = 3;

const lineLimit = 16 * 1024 * 1024; // a batch of events is far smaller
const callDeadlineMs = 5_000;

/** Events as they come, by what they are about. */
export type EventBatch = { readonly k: number; readonly dropped: number } & (
  | { readonly event: 'connections'; readonly items: readonly ConnectionEvent[] }
  | { readonly event: 'inspections'; readonly items: readonly InspectionEvent[] }
);

export interface ControlListeners {
  /** Must be acknowledged, or no further batch of its kind comes on this connection. */
  readonly onBatch: (batch: EventBatch, connection: ControlConnection) => void;
  readonly onEnd: (connection: ControlConnection) => void;
}

interface Waiting {
  readonly resolve: (answer: Record<string, unknown>) => void;
  readonly reject: (reason: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/**
 * One connection to the egress process: newline-delimited JSON over a Unix socket, requests numbered, answers in any order,
 * pushed batches of events in between. Ends as a whole: every call that waits fails, `onEnd` is told once.
 */
export class ControlConnection {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #next = 1;
  #rest = '';
  #ended = false;
  readonly #listeners: ControlListeners;

  private constructor(socket: Socket, listeners: ControlListeners) {
    this.#socket = socket;
    this.#listeners = listeners;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#take(text));
    socket.on('error', () => {}); // 'close' follows
    socket.on('close', () => this.#end());
  }

  /** @throws Error when nobody listens on the socket or the protocol is another one. */
  static async open(path: string, listeners: ControlListeners): Promise<ControlConnection> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    const connection = new ControlConnection(socket, listeners);
    try {
      const { version } = await connection.call({ op: 'hello', version: controlVersion, events: true });
      if (version !== controlVersion) throw new Error(`the egress process speaks version ${String(version)} of the control protocol, not ${controlVersion}`);
      return connection;
    } catch (reason) {
      connection.close();
      throw reason;
    }
  }

  async admit(entry: EgressEntry): Promise<void> {
    await this.call({ op: 'admit', entry });
  }

  async expel(address: string): Promise<void> {
    await this.call({ op: 'expel', address });
  }

  /** Makes these the only entries. Resolves to the addresses whose entry could not be put in force: they reach nothing. */
  async table(entries: readonly EgressEntry[]): Promise<readonly { readonly address: string; readonly error: string }[]> {
    const { failed } = await this.call({ op: 'table', entries });
    return Array.isArray(failed) ? (failed as { address: string; error: string }[]) : [];
  }

  get ended(): boolean {
    return this.#ended;
  }

  acknowledge({ k, event }: EventBatch): void {
    if (!this.#ended) this.#socket.write(`${JSON.stringify({ ack: k, of: event })}\n`);
  }

  close(): void {
    this.#socket.destroy();
    this.#end();
  }

  call(request: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
    if (this.#ended) return Promise.reject(new Error('the connection to the egress process has ended'));
    const n = this.#next++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(n);
        reject(new Error(`the egress process did not answer within ${callDeadlineMs / 1000} s`));
      }, callDeadlineMs);
      this.#waiting.set(n, { resolve, reject, timer });
      this.#socket.write(`${JSON.stringify({ n, ...request })}\n`);
    });
  }

  #take(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    if (this.#rest.length > lineLimit) return this.close();
    for (const line of lines) this.#handle(JSON.parse(line) as Record<string, unknown>);
  }

  #handle(message: Record<string, unknown>): void {
    if (message['event'] === 'connections' || message['event'] === 'inspections') return this.#listeners.onBatch(message as unknown as EventBatch, this);
    const waiting = this.#waiting.get(Number(message['n']));
    if (waiting === undefined) return; // its deadline has passed
    this.#waiting.delete(Number(message['n']));
    clearTimeout(waiting.timer);
    if (message['ok'] === true) waiting.resolve(message);
    else waiting.reject(new Error(String(message['error'] ?? 'refused')));
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(new Error('the connection to the egress process broke'));
    }
    this.#waiting.clear();
    this.#listeners.onEnd(this);
  }
}
