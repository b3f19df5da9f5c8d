import { createHash } from 'node:crypto';
import { PaddockError } from '../../core/errors.ts';
import type { TeamId } from '../../core/ids.ts';

interface Attempt {
  readonly bodyHash: string;
  readonly startedAt: number;
  /** Null while it runs. */
  answer: unknown;
}

const keptForMs = 24 * 60 * 60 * 1000;
const mostKeys = 10_000;
const longestKey = 255;

/**
 * Remembers creates by their `Idempotency-Key` (contract, section 6), so that a repeated request makes one sandbox. Keys of one team
 * mean nothing to another. A create that failed is forgotten: the next attempt runs again.
 *
 * Kept in memory, so a restart of the server forgets them; the store will hold them once several servers share it.
 */
export class Idempotency {
  readonly #attempts = new Map<string, Attempt>();
  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
  }

  /**
   * Runs `action`, or gives the answer of the earlier request with the same key and body.
   *
   * @param key the header's value; undefined runs the action without remembering it.
   * @throws PaddockError `idempotency_in_progress` while the earlier one runs, `idempotency_key_reused` for another body.
   */
  async once<T>(teamId: TeamId, key: string | undefined, body: unknown, action: () => Promise<T>): Promise<T> {
    if (key === undefined) return action();
    if (key === '' || key.length > longestKey) throw new PaddockError('invalid_argument', `Idempotency-Key must have 1 to ${longestKey} characters.`, { field: 'Idempotency-Key' });
    this.#forgetOld();
    const name = `${teamId} ${key}`;
    const bodyHash = createHash('sha256').update(JSON.stringify(body)).digest('base64');
    const earlier = this.#attempts.get(name);
    if (earlier !== undefined) return replay<T>(earlier, bodyHash);
    const attempt: Attempt = { bodyHash, startedAt: this.#now(), answer: null };
    this.#attempts.set(name, attempt);
    try {
      const answer = await action();
      attempt.answer = { value: answer };
      return answer;
    } catch (error) {
      this.#attempts.delete(name);
      throw error;
    }
  }

  #forgetOld(): void {
    const oldest = this.#now() - keptForMs;
    for (const [name, attempt] of this.#attempts) {
      // In order of insertion, so the first that is young enough ends the search.
      if (attempt.startedAt > oldest && this.#attempts.size < mostKeys) break;
      if (attempt.answer !== null) this.#attempts.delete(name);
    }
  }
}

function replay<T>(earlier: Attempt, bodyHash: string): T {
  if (earlier.bodyHash !== bodyHash) {
    throw new PaddockError('idempotency_key_reused', 'This Idempotency-Key was used for another request body: send a new key with a new request.');
  }
  if (earlier.answer === null) {
    throw new PaddockError('idempotency_in_progress', 'The first request with this Idempotency-Key is still running: try again shortly.', { retryAfterSeconds: 1 });
  }
  return (earlier.answer as { value: T }).value;
}
