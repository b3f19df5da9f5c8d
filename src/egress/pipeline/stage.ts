/** A request as it will be sent on. Headers are name, value, name, value, in their order, without those of one connection only. */
export interface RequestHead {
  readonly scheme: 'http' | 'https';
  readonly method: string;
  /** Canonical name, or an IPv4 address as text. */
  readonly host: string;
  readonly port: number;
  /** Path and query, in origin form. */
  readonly target: string;
  readonly headers: readonly string[];
}

export interface ResponseHead {
  readonly status: number;
  readonly reason: string;
  readonly headers: readonly string[];
}

/**
 * Looks at one exchange of a request and its answer, and may change or refuse it: made for the exchange, pure, without input or output of
 * its own. Methods are called in the order in which they stand here; each may throw a `Refusal`, which ends the exchange. What a stage does
 * not implement costs nothing: bodies are decoded, and their lengths given up, only for stages that want them.
 */
export interface Stage {
  /**
   * Whether bodies of requests in these content codings are to be unpacked, to go on plain. Asked before `requestBody`, and only for a body that
   * has some. False when that does not matter, or it passes as it is.
   */
  unpacks?(contentEncoding: string): boolean;
  /** Before anything is sent. */
  request?(head: RequestHead): RequestHead | Promise<RequestHead>;
  /** Null when the body does not matter. The bytes are as the client sent them, but for content codings that a stage has unpacked. */
  requestBody?(head: RequestHead): BodyFilter | null;
  requestTrailers?(trailers: readonly string[]): readonly string[];
  response?(head: ResponseHead): ResponseHead | Promise<ResponseHead>;
  /** Null when the body does not matter. The bytes are decoded, whatever `Content-Encoding` said. */
  responseBody?(head: ResponseHead): BodyFilter | null;
  responseTrailers?(trailers: readonly string[]): readonly string[];
  /** Instead of `response`, for an answer whose body cannot be changed any more: after it bytes go both ways as they are, or only to the client. */
  upgraded?(head: ResponseHead): ResponseHead;
  /** Sees what the server sends then, and throws for what must not pass. */
  upgradedBytes?(): BodyFilter | null;
}

/** The stages of one exchange. What is last on the way out may be first on the way in. */
export interface Stages {
  readonly outbound: readonly Stage[];
  readonly inbound: readonly Stage[];
}

export const noStages: Stages = Object.freeze({ outbound: [], inbound: [] });

/** Gets a body piece by piece and gives back what goes on: less for now, when it must see more first, or the whole at the end. */
export interface BodyFilter {
  /** False when what it gives back is what it got: the body keeps its length. */
  readonly changes: boolean;
  /** True as long as nothing of the body may go on, though it is given back: asked after each piece. */
  readonly holds?: boolean;
  push(chunk: Buffer): Buffer | Promise<Buffer>;
  /** What was held back. */
  end(): Buffer | Promise<Buffer>;
  /** Called when the exchange is over, however it went. */
  close?(): void;
}

/** Why an exchange does not take place, in words for the program inside. */
export class Refusal extends Error {
  readonly status: number;
  /** Stable name. */
  readonly code: string;
  /** `failed`: allowed, but the other side is at fault. */
  readonly verdict: 'blocked' | 'failed';

  constructor(status: number, code: string, reason: string, verdict: 'blocked' | 'failed' = 'blocked') {
    super(reason);
    this.name = 'Refusal';
    this.status = status;
    this.code = code;
    this.verdict = verdict;
  }
}
