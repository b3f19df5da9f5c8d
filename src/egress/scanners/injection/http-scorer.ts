import { Pool } from 'undici';
import { type InjectionScore, type InjectionScorer, labelOf, type ScoreOptions } from './scorer.ts';

export interface HttpScorerOptions {
  /** http or https; texts are posted to exactly this address. */
  readonly url: string;
  /** Sent as a bearer token. */
  readonly token?: string;
  /** For the whole exchange, milliseconds. */
  readonly deadlineMs?: number;
  /** Code units; a longer text is not sent. */
  readonly longestText?: number;
  /** Texts under way at once; more are not sent. */
  readonly mostWaiting?: number;
  /** How its scores are marked. */
  readonly by?: 'server' | 'judge';
}

const DEADLINE_MS = 5000;
const LONGEST_TEXT = 2 ** 20;
const MOST_WAITING = 64;
const CONNECTIONS = 8;
const KEPT_OPEN_MS = 30_000;
/** The answer is one number. */
const LARGEST_ANSWER = 16_384;

/**
 * Scores by a model server: posts `{"text": "..."}` (and `"policy"` where one is given), expects `{"score": 0..1}`. Connections are kept
 * open. Whatever goes wrong is "not scanned" with the reason; redirects are not followed.
 */
export class HttpScorer implements InjectionScorer {
  readonly #pool: Pool;
  readonly #path: string;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #options: Required<Pick<HttpScorerOptions, 'deadlineMs' | 'longestText' | 'mostWaiting' | 'by'>>;
  readonly #closing = new AbortController();
  #waiting = 0;

  constructor({ url, token, deadlineMs = DEADLINE_MS, longestText = LONGEST_TEXT, mostWaiting = MOST_WAITING, by = 'server' }: HttpScorerOptions) {
    const parsed = URL.canParse(url) ? new URL(url) : null;
    if (parsed === null || !['http:', 'https:'].includes(parsed.protocol)) throw new Error(`"${url}" is not the address of a model server: it must be an http or https URL`);
    if (parsed.username !== '' || parsed.password !== '') throw new Error('the address of a model server must not contain a user or password: give a token instead');
    if (!(deadlineMs > 0 && deadlineMs <= 120_000)) throw new Error(`the deadline of a model server must be between 1 and 120000 ms, not ${deadlineMs}`);
    this.#pool = new Pool(parsed.origin, { connections: CONNECTIONS, pipelining: 1, keepAliveTimeout: KEPT_OPEN_MS, connect: { timeout: deadlineMs }, headersTimeout: deadlineMs, bodyTimeout: deadlineMs });
    this.#path = parsed.pathname + parsed.search;
    this.#headers = { 'content-type': 'application/json', accept: 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) };
    this.#options = { deadlineMs, longestText, mostWaiting, by };
  }

  async score(text: string, { signal, policy }: ScoreOptions = {}): Promise<InjectionScore> {
    signal?.throwIfAborted();
    const { longestText, mostWaiting, deadlineMs } = this.#options;
    if (this.#closing.signal.aborted) return notScanned('the scorer is closed');
    if (text.length > longestText) return notScanned(`the text has ${text.length} characters, ${longestText} can be sent to the model server`);
    if (this.#waiting >= mostWaiting) return notScanned(`${mostWaiting} texts are already waiting for the model server`);
    const deadline = AbortSignal.timeout(deadlineMs);
    const ends = AbortSignal.any([deadline, this.#closing.signal, ...(signal ? [signal] : [])]);
    this.#waiting++;
    try {
      return await this.#ask(JSON.stringify({ text: text.toWellFormed(), ...(policy ? { policy } : {}) }), ends);
    } catch (error) {
      signal?.throwIfAborted();
      if (this.#closing.signal.aborted) return notScanned('the scorer was closed');
      if (deadline.aborted) return notScanned(`the model server did not answer within ${deadlineMs} ms`);
      return notScanned(`the model server failed: ${(error as Error).message}`);
    } finally {
      this.#waiting--;
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#pool.destroy();
  }

  async #ask(body: string, signal: AbortSignal): Promise<InjectionScore> {
    const { statusCode, body: answer } = await this.#pool.request({ method: 'POST', path: this.#path, headers: this.#headers, body, signal });
    const parts: Buffer[] = [];
    let length = 0;
    try {
      for await (const part of answer as AsyncIterable<Buffer>) {
        length += part.length;
        if (length > LARGEST_ANSWER) return notScanned(`the answer of the model server is longer than ${LARGEST_ANSWER} bytes`);
        parts.push(part);
      }
    } finally {
      // Of a complete answer nothing is left; of any other the connection is not used again.
      answer.destroy();
    }
    if (statusCode !== 200) return notScanned(`the model server answered with status ${statusCode}`);
    const score = scoreIn(Buffer.concat(parts).toString('utf8'));
    if (score === null) return notScanned('the answer of the model server is not {"score": number from 0 to 1}');
    return { scanned: true, score, label: labelOf(score), excerpt: null, by: this.#options.by };
  }
}

function scoreIn(answer: string): number | null {
  try {
    const { score } = JSON.parse(answer) as { score?: unknown };
    return typeof score === 'number' && score >= 0 && score <= 1 ? score : null;
  } catch {
    return null;
  }
}

function notScanned(reason: string): InjectionScore {
  return { scanned: false, reason };
}
