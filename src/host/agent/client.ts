import type { Duplex, Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { Pool, errors } from 'undici';
import { PaddockError } from '../../core/errors.ts';
import type { Guest, GuestIdentity, OutputEvent, ProcessInfo, ProcessKind, ProcessSpec, StartedProcess } from '../../core/host.ts';
import type { Limits } from '../../core/template.ts';
import { fromAgentAnswer, fromConversation } from './errors.ts';
import { readAll } from './answer.ts';
import { AgentFiles } from './files.ts';
import { AgentProtocolError, type Json, decodeFrames, numberField, parseExit, parseJson, parseStarted, processId, stringField } from './frames.ts';

export const agentPort = 49983;
export const agentProtocol = 1;

/** Any address would do: questions to whatever server are answered by the egress proxy's resolver. This one clients may expect. */
const nameServer = '8.8.8.8';

/** Bytes of a JSON answer that are read at most; a longer one is an attack or a bug. */
const answerLimit = 8 * 1024 * 1024;
const callDeadlineMs = 15_000;

export interface AgentRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  readonly json?: unknown;
  readonly body?: Readable | Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** Milliseconds until the answer's head; 0 for none beyond the signal. Default 15,000. */
  readonly deadlineMs?: number;
}

export interface AgentAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Readable;
}

/**
 * Typed client of the agent in one guest (docs/agent-protocol.md), with a pool of connections of its own. Trusts nothing that
 * comes back. After `end` every call, running or new, fails with the error given there.
 */
export class AgentClient implements Guest {
  readonly files: AgentFiles;
  readonly #pool: Pool;
  #token: string | null;
  readonly #isAlive: () => boolean;
  readonly #ended = new AbortController();

  /** @param isAlive whether the guest's process runs, to tell a death from a fault before anybody has noticed it. */
  constructor(address: string, token: string | null, isAlive: () => boolean) {
    this.#token = token;
    this.#isAlive = isAlive;
    // Streams hold a connection each; deadlines are per call, because a quiet stream is not a dead one.
    this.#pool = new Pool(`http://${address}:${agentPort}`, {
      connections: 512,
      pipelining: 1,
      keepAliveTimeout: 30_000,
      headersTimeout: 0,
      bodyTimeout: 0,
      maxHeaderSize: 16_384,
      connect: { timeout: 5_000 },
    });
    this.files = new AgentFiles((request) => this.request(request));
  }

  /** Gives the guest its identity. */
  async claim(identity: GuestIdentity, machineId: string, entropy: Uint8Array, limits: Limits, signal: AbortSignal): Promise<void> {
    const request: AgentRequest = {
      method: 'POST',
      path: '/v1/claim',
      json: {
        sandbox_id: identity.sandboxId,
        token: identity.agentToken,
        hostname: identity.hostname,
        machine_id: machineId,
        entropy: Buffer.from(entropy).toString('base64'),
        default_user: identity.defaultUser,
        sudo: identity.sudo,
        env: identity.env,
        nameservers: [nameServer],
        limits: { pids: limits.pids, memory_bytes: limits.memoryMb * 1024 * 1024 },
      },
      signal,
    };
    const answer = await this.#json(request);
    if (numberField(answer, 'protocol') !== agentProtocol) throw new AgentProtocolError(`version ${String(answer['protocol'])}`);
    this.#token = identity.agentToken;
  }

  /** Resolves when the agent answers at all; a booting guest refuses connections for some milliseconds. */
  async untilListening(signal: AbortSignal, deadlineMs = 20_000): Promise<void> {
    const deadline = Date.now() + deadlineMs;
    for (let pause = 2; ; pause = Math.min(pause * 1.5, 50)) {
      try {
        await this.#json({ method: 'GET', path: '/v1/health', signal, deadlineMs: 2_000 });
        return;
      } catch (reason) {
        if (signal.aborted || this.#ended.signal.aborted || Date.now() > deadline) throw reason;
        await sleep(pause, undefined, { signal });
      }
    }
  }

  /** Fails everything that runs with this error, and all later calls too. */
  end(error: PaddockError): void {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort(error);
    void this.#pool.destroy(error).catch(() => {});
  }

  async *run(spec: ProcessSpec, signal: AbortSignal): AsyncGenerator<OutputEvent> {
    const { body } = await this.request({ method: 'POST', path: '/v1/start-and-follow', json: processBody(spec), signal });
    yield* this.#events(body);
  }

  async start(spec: ProcessSpec, signal: AbortSignal): Promise<StartedProcess> {
    return parseStarted(await this.#json({ method: 'POST', path: '/v1/processes', json: processBody(spec), signal }));
  }

  async *output(id: string, after: number, follow: boolean, signal: AbortSignal): AsyncGenerator<OutputEvent> {
    const { body } = await this.request({ method: 'GET', path: `/v1/processes/${id}/output?after=${after}&follow=${follow}`, signal });
    yield* this.#events(body);
  }

  async *#events(body: Readable): AsyncGenerator<OutputEvent> {
    try {
      yield* decodeFrames(body as AsyncIterable<Uint8Array>);
    } catch (reason) {
      throw this.#translate(reason, true);
    } finally {
      body.destroy();
    }
  }

  async processes(signal: AbortSignal): Promise<readonly ProcessInfo[]> {
    const { processes } = await this.#json({ method: 'GET', path: '/v1/processes', signal });
    if (!Array.isArray(processes)) throw this.#translate(new AgentProtocolError('no list of processes'), false);
    return processes.map((item) => parseProcess(item as Json));
  }

  async process(id: string, signal: AbortSignal): Promise<ProcessInfo> {
    return parseProcess(await this.#json({ method: 'GET', path: `/v1/processes/${id}`, signal }));
  }

  async writeStdin(id: string, data: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.#json({ method: 'POST', path: `/v1/processes/${id}/stdin`, body: data, signal });
  }

  async closeStdin(id: string, signal: AbortSignal): Promise<void> {
    await this.#json({ method: 'POST', path: `/v1/processes/${id}/stdin/close`, signal });
  }

  async resize(id: string, size: { cols: number; rows: number }, signal: AbortSignal): Promise<void> {
    await this.#json({ method: 'POST', path: `/v1/processes/${id}/resize`, json: size, signal });
  }

  async sendSignal(id: string, name: string, signal: AbortSignal): Promise<boolean> {
    return (await this.#json({ method: 'POST', path: `/v1/processes/${id}/signal`, json: { signal: name, group: true }, signal }))['delivered'] === true;
  }

  async removeProcess(id: string, signal: AbortSignal): Promise<boolean> {
    return (await this.#json({ method: 'DELETE', path: `/v1/processes/${id}`, signal }))['killed'] === true;
  }

  async tunnel(port: number, signal: AbortSignal): Promise<Duplex> {
    this.#ended.signal.throwIfAborted();
    const limit = AbortSignal.any([signal, this.#ended.signal, AbortSignal.timeout(callDeadlineMs)]);
    try {
      const { socket } = await this.#pool.upgrade({ path: `/v1/tunnel?port=${port}`, method: 'GET', protocol: 'paddock-tunnel', headers: this.#headers(), signal: limit });
      const cut = (): void => void socket.destroy();
      this.#ended.signal.addEventListener('abort', cut, { once: true });
      socket.once('close', () => this.#ended.signal.removeEventListener('abort', cut));
      return socket;
    } catch (reason) {
      // undici gives no answer that refused an upgrade; ask in the plain way what the reason was.
      if (reason instanceof errors.SocketError || (reason as NodeJS.ErrnoException).code === 'UND_ERR_SOCKET') {
        throw new PaddockError('not_listening', `nothing listens on port ${port} in the sandbox`, {}, { cause: reason });
      }
      throw this.#translate(reason, false);
    }
  }

  /** One exchange; the answer's body is the caller's to read or destroy. Error answers are thrown. */
  async request({ method, path, json, body, headers, signal, deadlineMs = callDeadlineMs }: AgentRequest): Promise<AgentAnswer> {
    this.#ended.signal.throwIfAborted();
    const head = new AbortController();
    const timer = deadlineMs === 0 ? null : setTimeout(() => head.abort(new PaddockError('unprocessable', `the sandbox's agent did not answer within ${deadlineMs / 1000} s`)), deadlineMs);
    const signals = [this.#ended.signal, head.signal, ...(signal === undefined ? [] : [signal])];
    try {
      const answer = await this.#pool.request({
        method,
        path,
        headers: { ...this.#headers(), ...(json === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
        body: json === undefined ? (body ?? null) : JSON.stringify(json),
        signal: AbortSignal.any(signals),
      });
      if (answer.statusCode >= 400) throw fromAgentAnswer(answer.statusCode, await readAll(answer.body, 65_536));
      return { status: answer.statusCode, headers: answer.headers, body: answer.body };
    } catch (reason) {
      throw this.#translate(reason, method !== 'GET');
    } finally {
      if (timer !== null) clearTimeout(timer);
    }
  }

  async #json(request: AgentRequest): Promise<Json> {
    const { body } = await this.request(request);
    try {
      return parseJson(await readAll(body, answerLimit));
    } catch (reason) {
      throw this.#translate(reason, request.method !== 'GET');
    }
  }

  #headers(): Record<string, string> {
    return this.#token === null ? {} : { authorization: `Bearer ${this.#token}` };
  }

  /** A guest that has ended explains every failure; a caller who has left gets his own reason back. */
  #translate(reason: unknown, sent: boolean): unknown {
    if (this.#ended.signal.aborted) return this.#ended.signal.reason;
    if (reason instanceof Error && reason.name === 'AbortError') return reason;
    if (!(reason instanceof PaddockError) && !this.#isAlive()) return new PaddockError('gone', 'the sandbox has ended', {}, { cause: reason });
    const refused = (reason as NodeJS.ErrnoException | null)?.code;
    return fromConversation(reason, sent && refused !== 'ECONNREFUSED' && refused !== 'UND_ERR_CONNECT_TIMEOUT');
  }
}

function processBody(spec: ProcessSpec): object {
  return {
    cmd: spec.cmd,
    kind: spec.kind,
    stdin: spec.stdin,
    ...(spec.argv === undefined ? {} : { argv: spec.argv }),
    ...(spec.user === undefined ? {} : { user: spec.user }),
    ...(spec.cwd === undefined ? {} : { cwd: spec.cwd }),
    ...(spec.env === undefined ? {} : { env: spec.env }),
    ...(spec.size === undefined ? {} : { cols: spec.size.cols, rows: spec.size.rows }),
    ...(spec.tag === undefined ? {} : { tag: spec.tag }),
  };
}

function parseProcess(json: Json): ProcessInfo {
  const { env, exit } = json;
  return {
    id: processId(stringField(json, 'id')),
    pid: numberField(json, 'pid'),
    startedAt: numberField(json, 'started_at_ms'),
    cmd: stringField(json, 'cmd'),
    kind: stringField(json, 'kind') as ProcessKind,
    user: stringField(json, 'user'),
    cwd: stringField(json, 'cwd'),
    env: typeof env === 'object' && env !== null ? (env as Record<string, string>) : {},
    tag: typeof json['tag'] === 'string' ? json['tag'] : '',
    running: json['running'] === true,
    exit: typeof exit === 'object' && exit !== null ? parseExit(exit as Json) : null,
  };
}
