import { performance } from 'node:perf_hooks';
import { formatAddress } from '../../core/network/addresses.ts';
import type { Destination } from '../../core/network/decide.ts';
import type { InspectionEvent } from '../../core/network/inspection.ts';
import { codingsOf, decoded } from '../pipeline/content-coding.ts';
import { type BodyFilter, noStages, Refusal, type RequestHead, type ResponseHead, type Stage, type Stages } from '../pipeline/stage.ts';
import { FilteredBody } from './body.ts';
import type { BodySink, Front, Send, UpstreamExchange, UpstreamReply } from './front.ts';
import type { Http1Options } from './http1-upstream.ts';
import { headerValues, passedOn, withoutHeaders } from './headers.ts';
import { targetOf } from './target.ts';

/** A body that is changed keeps a length if it is small enough to be seen as a whole first. */
const mostGathered = 262_144;
const lingerMs = 3000;

/** What is told of an exchange, beside what its stages have to say. */
export type Exchanged = Omit<InspectionEvent, 'sandboxId' | 'secrets' | 'guardrails'>;

/** Where the exchanges of one connection take place. */
export interface ExchangePlace {
  readonly scheme: 'http' | 'https';
  readonly port: number;
  /** An exchange begins; what is returned is called when it has ended. */
  enter(): () => void;
  /**
   * Judges where a request wants to go.
   *
   * @throws Refusal
   */
  judge(destination: Destination, named: number | null): void;
  stages(host: string): Stages;
  send(destination: Destination, http2: boolean): Send;
  /** How to open a request that leaves HTTP. */
  http1(destination: Destination): Http1Options;
  /** Answers, or ends the connection, for what was refused or has failed before an answer was begun. */
  refuse(front: Pick<Front, 'begin' | 'begun' | 'abort'>, destination: Destination | null, reason: unknown): Answer;
  /** Tells what was done, if anybody wants to know. */
  record(event: Exchanged, stages: Stages): void;
}

/** What the guest was answered in the end; status null when it was only reset. */
export interface Answer {
  readonly status: number | null;
  readonly verdict: InspectionEvent['verdict'];
  readonly code: string | null;
  readonly reason: string;
}

/** Carries one request to its server and the answer back, through the stages. Never throws. */
export async function serveExchange(front: Front, place: ExchangePlace): Promise<void> {
  const leave = place.enter();
  try {
    await new Exchange(front, place).run();
  } catch {
    // Not even a refusal could be said; one exchange is no reason to end all others.
    front.abort();
  } finally {
    leave();
  }
}

/** What a request turned out to be, as far as it was read before it was refused, if it was. */
export class JudgedRequest {
  destination: Destination | null = null;
  path = '';
  stages: Stages = noStages;

  /** The request as it may be sent. @throws Refusal, or what the place throws */
  async head({ method, url, headers, http2 }: Pick<Front, 'method' | 'url' | 'headers' | 'http2'>, place: ExchangePlace): Promise<RequestHead> {
    const target = targetOf({ method, url, headers }, place.scheme, place.port);
    if (target.kind === 'broken') throw new Refusal(400, 'bad_request', target.why);
    assertUnambiguous(headers, http2);
    this.destination = target.destination;
    this.path = target.path;
    place.judge(target.destination, target.named);
    const { name, address } = target.destination;
    const host = name ?? formatAddress(address ?? 0);
    this.stages = place.stages(host);
    let head: RequestHead = { scheme: place.scheme, method, host, port: place.port, target: target.path, headers: passedOn(headers) };
    for (const stage of this.stages.outbound) if (stage.request !== undefined) head = await stage.request(head);
    return head;
  }
}

class Exchange {
  readonly #front: Front;
  readonly #place: ExchangePlace;
  readonly #startedAt = Date.now();
  readonly #started = performance.now();
  readonly #judged = new JudgedRequest();
  #sent = 0;
  #received = 0;
  #upstreamStatus: number | null = null;
  #status: number | null = null;

  constructor(front: Front, place: ExchangePlace) {
    this.#front = front;
    this.#place = place;
  }

  async run(): Promise<void> {
    let answer: Answer = { status: null, verdict: 'allowed', code: null, reason: '' };
    let upstream: UpstreamExchange | null = null;
    let body: FilteredBody | null = null;
    this.#front.gone.addEventListener('abort', () => upstream?.destroy(), { once: true });
    try {
      const judged = await this.#judged.head(this.#front, this.#place);
      const [head, made] = await this.#outgoing(judged);
      body = made;
      const send = this.#place.send(this.#judged.destination!, this.#front.http2);
      upstream = await send(head, this.#front.body !== null, () => this.#front.continue());
      if (this.#front.gone.aborted) throw new Error('the sandbox gave the request up');
      await this.#converse(head, upstream, body);
      answer = { ...answer, status: this.#status };
    } catch (reason) {
      upstream?.destroy();
      answer = this.#fail(reason);
    } finally {
      await body?.close();
    }
    this.#record(answer);
  }

  /** The request as it is sent, and its body on its way through the filters: nothing is sent while one of them holds it back. */
  async #outgoing(head: RequestHead): Promise<[RequestHead, FilteredBody | null]> {
    if (this.#front.body === null) return [head, null];
    const { outbound } = this.#judged.stages;
    const encoding = headerValues(head.headers, 'content-encoding').join(',');
    const unpacked = encoding !== '' && outbound.map((stage) => stage.unpacks?.(encoding) === true).includes(true);
    const filters = filtersOf(outbound, (stage) => stage.requestBody?.(head));
    const source = unpacked ? decoded(this.#front.body, codingsOf(encoding)) : this.#front.body;
    const count = (size: number): void => void (this.#sent += size);
    const body = new FilteredBody(source, { filters, count, ...(unpacked ? { fault: unpackingFault } : {}) });
    const changes = unpacked || filters.some((filter) => filter.changes);
    const holds = filters.some((filter) => filter.holds === true);
    if (!changes && !holds) return [head, body];
    const length = Number(headerValues(head.headers, 'content-length')[0] ?? Number.NaN);
    const headers = withoutHeaders(head.headers, (name) => name === 'expect');
    const small = changes && length <= mostGathered;
    try {
      if (small || holds) {
        if (headers.length < head.headers.length) this.#front.continue();
        await body.gather(small ? Infinity : 0);
      }
    } catch (reason) {
      await body.close();
      throw reason;
    }
    // Without having waited for the body, the server is asked whether it wants it.
    const kept = small || holds ? headers : head.headers;
    if (!changes) return [{ ...head, headers: kept }, body];
    return [{ ...head, headers: [...rewritten(kept, unpacked), ...(body.length === null ? [] : ['Content-Length', String(body.length)])] }, body];
  }

  async #converse(head: RequestHead, upstream: UpstreamExchange, body: FilteredBody | null): Promise<void> {
    const upload = this.#upload(head, upstream, body);
    upload.catch(() => {
      // Half a request is no reason to keep a connection; and what nobody wants to read has to go somewhere.
      upstream.destroy();
      this.#front.body?.resume();
    });
    // The reply counts when the server gives up the body early, a refusal of the body when there is no reply yet.
    const failed = upload.then(
      () => upstream.reply,
      (reason: unknown) => {
        if (reason instanceof Refusal) throw reason;
        return upstream.reply;
      },
    );
    const reply = await Promise.race([upstream.reply, failed]);
    // A refusal while the answer is on its way ends it.
    const refused = upload.then(
      () => new Promise<never>(() => {}),
      (reason: unknown) => {
        if (reason instanceof Refusal) throw reason;
        return new Promise<never>(() => {});
      },
    );
    await Promise.race([this.#download(head, reply), refused]);
  }

  async #upload(head: RequestHead, { sink }: UpstreamExchange, body: FilteredBody | null): Promise<void> {
    if (body === null) return;
    let passed = 0;
    const counting: BodySink = { ...sink, write: (chunk) => ((passed += chunk.length), sink.write(chunk)) };
    await body.passTo(counting);
    const length = headerValues(head.headers, 'content-length')[0];
    if (length !== undefined && Number(length) !== passed) throw new Refusal(400, 'ambiguous_request', 'The body has not the length that the request says.');
    let trailers = passedOn(this.#front.trailers);
    for (const stage of this.#judged.stages.outbound) if (stage.requestTrailers !== undefined) trailers = [...stage.requestTrailers(trailers)];
    sink.end(trailers);
  }

  async #download({ method }: RequestHead, reply: UpstreamReply): Promise<void> {
    this.#upstreamStatus = reply.head.status;
    // Another way to the same host would be one that nobody here looks into.
    let head: ResponseHead = this.#place.scheme === 'https' ? { ...reply.head, headers: withoutHeaders(reply.head.headers, (name) => name === 'alt-svc') } : reply.head;
    for (const stage of this.#judged.stages.inbound) if (stage.response !== undefined) head = await stage.response(head);
    const bodyless = method === 'HEAD' || head.status === 204 || head.status === 304;
    const filters = bodyless ? [] : filtersOf(this.#judged.stages.inbound, (stage) => stage.responseBody?.(head));
    const count = (size: number): void => void (this.#received += size);
    const codings = filters.length === 0 ? [] : codingsOf(headerValues(head.headers, 'content-encoding').join(','));
    const body = new FilteredBody(codings.length > 0 ? decoded(reply.body, codings) : reply.body, { filters, count });
    try {
      const changes = codings.length > 0 || filters.some((filter) => filter.changes);
      const length = Number(headerValues(head.headers, 'content-length')[0] ?? Number.NaN);
      await body.gather(changes && codings.length === 0 && length <= mostGathered ? Infinity : 0);
      if (changes) head = { ...head, headers: [...rewritten(head.headers, codings.length > 0), ...(body.length === null ? [] : ['Content-Length', String(body.length)])] };
      const sink = this.#begin(head, bodyless);
      await body.passTo(sink);
      sink.end(this.#trailersOf(reply));
    } finally {
      await body.close();
    }
  }

  #begin(head: ResponseHead, bodyless: boolean): ReturnType<Front['begin']> {
    this.#status = head.status;
    return this.#front.begin(head, bodyless);
  }

  #trailersOf(reply: UpstreamReply): readonly string[] {
    let trailers: readonly string[] = passedOn(reply.trailers);
    for (const stage of this.#judged.stages.inbound) if (stage.responseTrailers !== undefined) trailers = stage.responseTrailers(trailers);
    return trailers;
  }

  #fail(reason: unknown): Answer {
    if (this.#front.gone.aborted && !(reason instanceof Refusal)) return { status: this.#status, verdict: 'allowed', code: null, reason: 'The sandbox gave the request up.' };
    if (!this.#front.begun) {
      const answer = this.#place.refuse(this.#front, this.#judged.destination, reason);
      this.#letBodyGo();
      return answer;
    }
    this.#front.abort();
    if (reason instanceof Refusal) return { status: this.#status, verdict: reason.verdict, code: reason.code, reason: reason.message };
    return { status: this.#status, verdict: 'failed', code: 'upstream_broke_off', reason: 'The server broke off in the middle of its answer.' };
  }

  /** A client that still sends reads the answer only if its bytes are taken, for a while. */
  #letBodyGo(): void {
    const { body } = this.#front;
    if (body === null || body.readableEnded) return;
    body.resume();
    const timer = setTimeout(() => {
      if (!body.readableEnded && !this.#front.gone.aborted) this.#front.abort();
    }, lingerMs);
    body.once('close', () => clearTimeout(timer));
    body.once('end', () => clearTimeout(timer));
  }

  #record({ status, verdict, code, reason }: Answer): void {
    const { name = null, address = null } = this.#judged.destination ?? {};
    this.#place.record(
      {
        at: this.#startedAt,
        method: this.#front.method.slice(0, 64),
        host: name ?? (address === null ? '' : formatAddress(address)),
        port: this.#place.port,
        path: this.#judged.path,
        status,
        upstreamStatus: this.#upstreamStatus,
        durationMs: Math.round(performance.now() - this.#started),
        bytesSent: this.#sent,
        bytesReceived: this.#received,
        verdict,
        errorCode: code,
        reason,
      },
      this.#judged.stages,
    );
  }
}

/** A request that two readers could frame in two ways is not passed on, though it would be written anew. @throws Refusal */
function assertUnambiguous(headers: readonly string[], http2: boolean): void {
  const lengths = headerValues(headers, 'content-length');
  const codings = headerValues(headers, 'transfer-encoding');
  const fault =
    lengths.length > 1 || lengths.some((length) => !/^\d{1,15}$/.test(length))
      ? 'has no single length'
      : codings.length > 0 && (http2 || lengths.length > 0 || codings.length > 1 || codings[0]!.trim().toLowerCase() !== 'chunked')
        ? 'has a Transfer-Encoding besides a length, twice, or other than chunked'
        : null;
  if (fault !== null) throw new Refusal(400, 'ambiguous_request', `The request ${fault}.`);
}

function filtersOf(stages: readonly Stage[], filterOf: (stage: Stage) => BodyFilter | null | undefined): BodyFilter[] {
  return stages.map(filterOf).filter((filter) => filter != null);
}

/** What is not true of a body any more that may be another one. */
function rewritten(given: readonly string[], unpacked: boolean): string[] {
  const gone = new Set(['content-length', 'content-md5', 'digest', 'content-digest', 'repr-digest', 'accept-ranges', ...(unpacked ? ['content-encoding'] : [])]);
  const headers = withoutHeaders(given, (name) => gone.has(name));
  for (let i = 0; i < headers.length; i += 2) if (headers[i]!.toLowerCase() === 'etag' && !headers[i + 1]!.startsWith('W/')) headers[i + 1] = `W/${headers[i + 1]}`;
  return headers;
}

/** What the client has sent in a coding and could not be unpacked is its own fault. */
function unpackingFault(reason: unknown): unknown {
  if (reason instanceof Refusal) return new Refusal(400, 'unreadable_request', reason.message.replace('The answer', 'The body'));
  const { code = '' } = reason as NodeJS.ErrnoException;
  return code.startsWith('Z_') || code.startsWith('ERR__ERROR') || code.startsWith('ZSTD_') ? new Refusal(400, 'unreadable_request', `The body cannot be unpacked (${code}).`) : reason;
}
