import type { Duplex, Readable } from 'node:stream';
import { Pool, errors } from 'undici';
import { PaddockError } from '../../core/errors.ts';
import { readAll, readJson } from './answer.ts';
import { fromAgentAnswer, fromConversation } from './errors.ts';
import type { Json } from './frames.ts';
import { HeldBack, type Passage, type RequestKind, Traffic } from './traffic.ts';

export const agentPort = 49983;

const callDeadlineMs = 15_000;
const announceDeadlineMs = 2_000;
/** How long, in the guest's running time, its agent keeps output for followers that a hold has cut. */
const keepOutputSeconds = 60;

export interface AgentRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  readonly json?: unknown;
  readonly body?: Readable | Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** Milliseconds until the answer's head; 0 for none beyond the signal. Default 15,000. */
  readonly deadlineMs?: number;
  /** Default `call`. */
  readonly kind?: RequestKind;
  /** Instead of the guest's present token. */
  readonly token?: string;
}

export interface AgentAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Readable;
  /** What this exchange is from here on. */
  becomes(kind: RequestKind): void;
}

/** The way to one guest's agent: a pool of connections of its own, which can be held back while the guest is being saved. */
export class AgentConnection {
  /** Sent with every request, once the guest has one. */
  token: string | null;
  readonly #origin: string;
  readonly #isAlive: () => boolean;
  readonly #traffic = new Traffic();
  readonly #ended = new AbortController();
  #pool: Pool;

  constructor(address: string, token: string | null, isAlive: () => boolean) {
    this.#origin = `http://${address}:${agentPort}`;
    this.token = token;
    this.#isAlive = isAlive;
    this.#pool = openPool(this.#origin);
  }

  /** Aborted by `end`, with its error. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  get isHeld(): boolean {
    return this.#traffic.isHeld;
  }

  get holds(): number {
    return this.#traffic.holds;
  }

  end(reason: PaddockError): void {
    if (this.ended.aborted) return;
    this.#ended.abort(reason);
    void this.#pool.destroy(reason).catch(() => {});
  }

  async hold(settleMs: number): Promise<void> {
    this.ended.throwIfAborted();
    this.#traffic.hold();
    await this.#traffic.settle(settleMs);
    this.#traffic.interrupt(breakOff);
    // While the followers are still there: their output must wait for them.
    const closed = await this.#announce();
    const pool = this.#pool;
    this.#pool = openPool(this.#origin);
    if (closed) {
      // What has arrived from a connection that the agent closed is still there to be read, by a slow reader in his own time.
      void pool.close().catch(() => {});
    } else {
      this.#traffic.interrupt(({ kind }) => (kind === 'follow' ? new HeldBack() : null));
      await pool.destroy();
    }
    this.ended.throwIfAborted();
    if (!this.isHeld) throw new PaddockError('conflict', 'the sandbox was released while it was about to be held');
  }

  release(): void {
    this.#traffic.release();
  }

  /** Lets the agent close its connections; one that is still open in a checkpoint can leave it deaf after a restore. False when it does not. */
  async #announce(): Promise<boolean> {
    try {
      await this.json({ method: 'POST', path: '/v1/hold', json: { output_seconds: keepOutputSeconds }, kind: 'host', deadlineMs: announceDeadlineMs });
      return true;
    } catch {
      return false; // an older agent, or one that is starved
    }
  }

  /** One exchange; the answer's body is the caller's to read or destroy. Error answers are thrown, and whatever else fails as a PaddockError. */
  async request(request: AgentRequest): Promise<AgentAnswer> {
    try {
      return await this.exchange(request);
    } catch (reason) {
      throw this.translate(reason, request.method !== 'GET');
    }
  }

  /** As `request`, but a connection that failed is thrown as it is. */
  async exchange({ method, path, json, body, headers, signal, kind = 'call', token, deadlineMs = callDeadlineMs }: AgentRequest): Promise<AgentAnswer> {
    const passage = await this.#admit(kind, signal);
    // Counted from here: nobody's patience is used up by a hold.
    const head = new AbortController();
    const timer = deadlineMs === 0 ? null : setTimeout(() => head.abort(new PaddockError('unprocessable', `the sandbox's agent did not answer within ${deadlineMs / 1000} s`)), deadlineMs);
    const signals = [this.ended, head.signal, passage.cut, ...(signal === undefined ? [] : [signal])];
    try {
      const answer = await this.#pool.request({
        method,
        path,
        headers: { ...this.#headers(token), ...(json === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
        body: json === undefined ? (body ?? null) : JSON.stringify(json),
        signal: AbortSignal.any(signals),
        reset: kind === 'host' && this.isHeld,
      });
      answer.body.once('close', () => passage[Symbol.dispose]());
      passage.answered();
      if (answer.statusCode >= 400) throw fromAgentAnswer(answer.statusCode, await readAll(answer.body, 65_536), String(answer.headers['content-range'] ?? ''));
      return { status: answer.statusCode, headers: answer.headers, body: answer.body, becomes: (next) => passage.becomes(next) };
    } catch (reason) {
      passage[Symbol.dispose]();
      throw passage.cut.aborted ? passage.cut.reason : reason;
    } finally {
      if (timer !== null) clearTimeout(timer);
    }
  }

  /** An exchange whose answer is a JSON object. One that only asks, and is cut by a hold, asks again afterwards. */
  async json(request: AgentRequest, limit?: number): Promise<Json> {
    for (;;) {
      try {
        const { body } = await this.exchange(request);
        return await readJson(body, limit);
      } catch (reason) {
        if (reason instanceof HeldBack && request.method === 'GET') continue;
        throw this.translate(reason, request.method !== 'GET');
      }
    }
  }

  async tunnel(port: number, signal: AbortSignal): Promise<Duplex> {
    const passage = await this.#admit('tunnel', signal);
    const limit = AbortSignal.any([signal, this.ended, passage.cut, AbortSignal.timeout(callDeadlineMs)]);
    try {
      const { socket } = await this.#pool.upgrade({ path: `/v1/tunnel?port=${port}`, method: 'GET', protocol: 'paddock-tunnel', headers: this.#headers(), signal: limit });
      this.#attend(socket, passage);
      return socket;
    } catch (reason) {
      passage[Symbol.dispose]();
      if (passage.cut.aborted) throw passage.cut.reason;
      // undici gives no answer that refused an upgrade; ask in the plain way what the reason was.
      if (reason instanceof errors.SocketError || (reason as NodeJS.ErrnoException).code === 'UND_ERR_SOCKET') {
        throw new PaddockError('not_listening', `nothing listens on port ${port} in the sandbox`, {}, { cause: reason });
      }
      throw this.translate(reason, false);
    }
  }

  /** Ends a tunnel with the guest, or when it is saved. */
  #attend(socket: Duplex, passage: Passage): void {
    const close = (): void => void socket.destroy();
    const breakOff = (): void => void socket.destroy(passage.cut.reason as Error);
    socket.on('error', () => {}); // its user may not listen yet, and hears of the end in any case
    this.ended.addEventListener('abort', close, { once: true });
    passage.cut.addEventListener('abort', breakOff, { once: true });
    socket.once('close', () => {
      this.ended.removeEventListener('abort', close);
      passage[Symbol.dispose]();
    });
    if (passage.cut.aborted) breakOff();
  }

  /** Whether this is a connection that broke although the guest lives, so that another one may do. */
  isBroken(reason: unknown, signal?: AbortSignal): boolean {
    if (this.ended.aborted || signal?.aborted === true || !this.#isAlive()) return false;
    if (reason instanceof PaddockError) return false;
    const code = (reason as NodeJS.ErrnoException | null)?.code;
    return reason instanceof HeldBack || (typeof code === 'string' && /^(E[A-Z]+|ERR_STREAM_PREMATURE_CLOSE|UND_ERR_(SOCKET|CONNECT_TIMEOUT|DESTROYED|CLOSED))$/.test(code));
  }

  /** A guest that has ended explains every failure; a caller who has left gets his own reason back. */
  translate(reason: unknown, sent: boolean): unknown {
    if (this.ended.aborted) return this.ended.reason;
    if (reason instanceof Error && reason.name === 'AbortError') return reason;
    if (!(reason instanceof PaddockError) && !this.#isAlive()) return new PaddockError('gone', 'the sandbox has ended', {}, { cause: reason });
    const refused = (reason as NodeJS.ErrnoException | null)?.code;
    return fromConversation(reason, sent && refused !== 'ECONNREFUSED' && refused !== 'UND_ERR_CONNECT_TIMEOUT');
  }

  async #admit(kind: RequestKind, signal?: AbortSignal): Promise<Passage> {
    try {
      this.ended.throwIfAborted();
      return await this.#traffic.admit(kind, signal === undefined ? this.ended : AbortSignal.any([this.ended, signal]));
    } catch (reason) {
      throw unsent(this.translate(reason, false));
    }
  }

  #headers(token: string | null = this.token): Record<string, string> {
    return token === null ? {} : { authorization: `Bearer ${token}` };
  }
}

function openPool(origin: string): Pool {
  // Streams hold a connection each; deadlines are per call, because a quiet stream is not a dead one.
  return new Pool(origin, {
    connections: 512,
    pipelining: 1,
    keepAliveTimeout: 30_000,
    headersTimeout: 0,
    bodyTimeout: 0,
    maxHeaderSize: 16_384,
    connect: { timeout: 5_000 },
  });
}

/** The reason for which a hold breaks a request off before the agent has closed anything. */
function breakOff({ kind, isAnswered }: Passage): Error | null {
  switch (kind) {
    case 'call':
      return new HeldBack();
    case 'follow':
      return isAnswered ? null : new HeldBack(); // it might connect after all the others were closed
    case 'transfer':
      return new PaddockError('conflict', 'the sandbox is being saved (paused or snapshotted), which broke the file transfer off: repeat it afterwards');
    case 'tunnel':
      return new PaddockError('conflict', 'the sandbox is being saved (paused or snapshotted), which closed the connection into it: connect again afterwards');
    default:
      return null;
  }
}

/** The guest was paused before it saw anything of the request: it may be made again. */
function unsent(reason: unknown): unknown {
  if (!(reason instanceof PaddockError) || reason.detail.reason !== 'paused') return reason;
  return new PaddockError(reason.code, reason.message, { ...reason.detail, unsent: true }, { cause: reason });
}
