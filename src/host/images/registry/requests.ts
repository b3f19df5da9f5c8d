import { Agent, type Dispatcher, errors, request } from 'undici';
import { BuildFailure } from '../../../core/templates/build-host.ts';
import { untilAborted } from '../../until-aborted.ts';
import type { Connector } from './connector.ts';
import { type Endpoint, endpointOf, formatEndpoint, sameEndpoint } from './endpoint.ts';

/** An answer that is no redirect. Its body must be read or destroyed. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Dispatcher.ResponseData['body'];
  /** Who gave it: another than the one that was asked, after a redirect. */
  readonly from: string;
}

export interface Patience {
  /** Milliseconds that an answer, or the next piece of one, may take. Default 30,000. */
  readonly idleMs?: number;
  /** Milliseconds before the first repetition; the second waits three times as long. Default 500. */
  readonly retryMs?: number;
}

const mostRedirects = 5;
const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
const busy: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);
const mostRepetitions = 2;
const longestWaitMs = 15_000;
const longestHeaders = 32_768;

/** GET requests of one pull, and the connections for them. Close it. */
export class Requests {
  readonly #connector: Connector;
  readonly #agent: Agent;
  readonly #retryMs: number;
  /** Whether the operator has named the registry: only that one may lead to other hosts the operator has named. */
  readonly #fromInternal: boolean;

  constructor(connector: Connector, registry: Endpoint, signal: AbortSignal, { idleMs = 30_000, retryMs = 500 }: Patience) {
    this.#connector = connector;
    this.#fromInternal = connector.isInternal(registry);
    this.#retryMs = retryMs;
    this.#agent = new Agent({
      allowH2: false,
      connections: 1, // to each host; one request comes after another
      headersTimeout: idleMs,
      bodyTimeout: idleMs,
      maxHeaderSize: longestHeaders,
      connect: ({ protocol, hostname, port }, done) => {
        const endpoint: Endpoint = { secure: protocol === 'https:', host: hostname, port: Number(port || (protocol === 'https:' ? 443 : 80)) };
        connector.connect(endpoint, signal).then(
          (socket) => done(null, socket),
          (reason: unknown) => done(reason as Error, null),
        );
      },
    });
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  /** Follows redirects. What is in `headers.authorization` is for the first host only. */
  async get(url: URL, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Answer> {
    const first = this.#endpoint(url);
    for (let [current, count] = [url, 0]; ; count++) {
      const endpoint = this.#endpoint(current);
      const { authorization, ...others } = headers;
      const sent = authorization !== undefined && sameEndpoint(endpoint, first) ? headers : others;
      const { statusCode, headers: received, body } = await request(current.href, { dispatcher: this.#agent, method: 'GET', headers: { ...sent, 'accept-encoding': 'identity', 'user-agent': 'paddock' }, signal });
      const from = formatEndpoint(endpoint);
      if (!redirects.has(statusCode)) return { status: statusCode, headers: received, body, from };
      discard(body);
      const { location } = received;
      if (count === mostRedirects) throw new BuildFailure('image_pull_failed', `${from} redirects more than ${mostRedirects} times`);
      if (typeof location !== 'string' || !URL.canParse(location, current.href)) throw new BuildFailure('image_pull_failed', `${from} redirects to nowhere`);
      current = new URL(location, current);
      if (endpoint.secure && current.protocol !== 'https:') throw new BuildFailure('image_pull_failed', `${from} redirects from https to ${current.protocol.slice(0, 20)}//`);
    }
  }

  /** Does it again, twice at most, when the network failed or the host was busy. */
  async persistently<T>(host: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    for (let count = 0; ; count++) {
      try {
        return await work();
      } catch (reason) {
        signal.throwIfAborted();
        if (reason instanceof BuildFailure && !(reason instanceof Busy)) throw reason;
        if (count >= mostRepetitions) throw reason instanceof Busy ? reason : describeFault(host, reason);
        await this.pause(count, reason instanceof Busy ? reason.afterMs : 0, signal);
      }
    }
  }

  async pause(count: number, atLeastMs: number, signal: AbortSignal): Promise<void> {
    const waited = Promise.withResolvers<void>();
    const timer = setTimeout(waited.resolve, Math.max(this.#retryMs * 3 ** count, Math.min(atLeastMs, longestWaitMs)));
    try {
      await untilAborted(waited.promise, signal);
    } finally {
      clearTimeout(timer);
    }
  }

  #endpoint(url: URL): Endpoint {
    const endpoint = endpointOf(url);
    if (endpoint === null) throw new BuildFailure('image_pull_failed', `${url.hostname.slice(0, 200)} is no host that images can come from: it takes https, a name or an IPv4 address, and no login in the URL`);
    if (!this.#fromInternal && this.#connector.isInternal(endpoint)) throw new BuildFailure('image_pull_failed', `a registry of the internet leads to ${formatEndpoint(endpoint)}, which is internal`);
    return endpoint;
  }
}

/** The host may do it later. */
export class Busy extends BuildFailure {
  readonly afterMs: number;

  constructor({ status, headers, from }: Answer) {
    super('image_pull_failed', status === 429 ? `${from} answered 429: too many requests, try again later or give a login` : `${from} answered ${status}`);
    this.afterMs = Number(headers['retry-after'] ?? 0) * 1000 || 0;
  }

  static is({ status }: Answer): boolean {
    return busy.has(status);
  }
}

/** What a failure of the network was, with the host that it was about. */
export function describeFault(host: string, reason: unknown): BuildFailure {
  if (reason instanceof BuildFailure) return reason;
  const { code, name, message } = reason as NodeJS.ErrnoException;
  const said =
    name === 'TimeoutError' || name === 'AbortError' || reason instanceof errors.HeadersTimeoutError || reason instanceof errors.BodyTimeoutError
      ? 'no answer in time'
      : code === 'ENOTFOUND' || code === 'EAI_AGAIN'
        ? 'its name cannot be resolved'
        : code === 'ECONNREFUSED'
          ? 'it refused the connection'
          : message.slice(0, 300);
  return new BuildFailure('image_pull_failed', `${host} could not be reached: ${said}`, { cause: reason });
}

/** Gives a body up. */
export function discard(body: Answer['body']): void {
  body.on('error', () => {}).destroy();
}
