import { createHmac, randomUUID } from 'node:crypto';
import type { Clock } from './clock.ts';
import { PaddockError } from './errors.ts';
import type { SandboxId, TeamId } from './ids.ts';
import type { Sandbox } from './sandbox.ts';
import type { SandboxStore } from './store.ts';
import { Turns } from './turns.ts';

/** A create that came with a key. */
export interface KeyedCreate {
  readonly teamId: TeamId;
  /** Keyed hash of what the client sent, hex; neither key nor body is stored. */
  readonly keyHash: string;
  readonly bodyHash: string;
  /** The run of the server that carries it out: of another run's, only what is stored is left. */
  readonly run: string;
  /** Named before anything of the sandbox exists. */
  readonly sandboxId: SandboxId | null;
  /** The body of the answer as JSON; null until there is one. */
  readonly answer: string | null;
  readonly createdAt: number;
}

export interface IdempotencyStore {
  /** Writes a new one; resolves to the one that is there already and not older than `notBefore`, which stays as it is. */
  claim(create: KeyedCreate, notBefore: number): Promise<KeyedCreate | null>;
  /** Puts one in the place of one that came to nothing; false when that has changed meanwhile. */
  reclaim(dead: KeyedCreate, create: KeyedCreate): Promise<boolean>;
  name(create: KeyedCreate, sandboxId: SandboxId): Promise<void>;
  finish(create: KeyedCreate, answer: string): Promise<void>;
  /** Forgets one that failed. */
  release(create: KeyedCreate): Promise<void>;
  /** Removes what is older than `before`, and the oldest finished ones of each team beyond its bounds. */
  purge(before: number): Promise<void>;
}

/** Told before anything of the sandbox exists, and waited for. */
export type Born = (id: SandboxId) => Promise<void>;

export const keptForMs = 24 * 60 * 60 * 1000;
const longestKey = 255;

/**
 * Creates that a client may repeat: one key makes one sandbox, over crashes and restarts of the server. Keys of one team mean nothing to
 * another. A create that failed is forgotten, and so is one that a crash ended before its sandbox ran, because the next start removes what is
 * left of it: the next attempt runs again. One whose sandbox survived a crash answers with that one.
 */
export class Idempotency {
  readonly #store: { readonly idempotency: IdempotencyStore; readonly sandboxes: Pick<SandboxStore, 'find'> };
  readonly #clock: Clock;
  readonly #secret: Buffer;
  readonly #run = randomUUID();
  /** Those that this run carries out. */
  readonly #running = new Set<string>();
  readonly #turns = new Turns<string>();

  /** @param deps.secret keys the hashes, which might otherwise be guessed from; the same after a restart. */
  constructor(deps: { readonly store: { readonly idempotency: IdempotencyStore; readonly sandboxes: Pick<SandboxStore, 'find'> }; readonly clock: Clock; readonly secret: Buffer }) {
    this.#store = deps.store;
    this.#clock = deps.clock;
    this.#secret = deps.secret;
  }

  /**
   * Runs `create`, or gives the answer of the earlier request with the same key and body.
   *
   * @param key undefined runs it without remembering it.
   * @param present makes the answer, which must survive JSON.
   * @throws PaddockError `idempotency_in_progress` while the earlier one runs, `idempotency_key_reused` for another body.
   */
  async once<T>(teamId: TeamId, key: string | undefined, body: unknown, create: (born: Born | undefined) => Promise<Sandbox>, present: (sandbox: Sandbox) => T): Promise<T> {
    if (key === undefined) return present(await create(undefined));
    if (key === '' || key.length > longestKey) throw new PaddockError('invalid_argument', `Idempotency-Key must have 1 to ${longestKey} characters.`, { field: 'Idempotency-Key' });
    const attempt: KeyedCreate = { teamId, keyHash: this.#hash(`key ${key}`), bodyHash: this.#hash(`body ${JSON.stringify(body)}`), run: this.#run, sandboxId: null, answer: null, createdAt: this.#clock.now() };
    const name = `${teamId} ${attempt.keyHash}`;
    const earlier = await this.#turns.take(name, () => this.#find(name, attempt));
    if (earlier !== null) return earlier.answer === null ? this.#answer(attempt, earlier.survivor, present) : (JSON.parse(earlier.answer) as T);
    try {
      const sandbox = await create((id) => this.#store.idempotency.name(attempt, id));
      return await this.#answer(attempt, sandbox, present);
    } catch (error) {
      // What cannot be forgotten now names a sandbox that is not there, and is free all the same.
      await this.#store.idempotency.release(attempt).catch(() => undefined);
      throw error;
    } finally {
      this.#running.delete(name);
    }
  }

  /** What an earlier request came to; null when this one is to run. */
  async #find(name: string, attempt: KeyedCreate): Promise<{ readonly answer: string } | { readonly answer: null; readonly survivor: Sandbox } | null> {
    const { idempotency } = this.#store;
    const found = await idempotency.claim(attempt, attempt.createdAt - keptForMs);
    if (found !== null) {
      const running = this.#running.has(name);
      const survivor = running || found.answer !== null ? null : await this.#survivor(found);
      if (found.bodyHash !== attempt.bodyHash && (running || found.answer !== null || survivor !== null)) {
        throw new PaddockError('idempotency_key_reused', 'This Idempotency-Key was used for another request body: send a new key with a new request.');
      }
      if (found.answer !== null) return { answer: found.answer };
      if (survivor !== null) return { answer: null, survivor };
      if (running || !(await idempotency.reclaim(found, attempt))) {
        throw new PaddockError('idempotency_in_progress', 'The first request with this Idempotency-Key is still running: try again shortly.', { retryAfterSeconds: 1 });
      }
    }
    this.#running.add(name);
    return null;
  }

  /** The sandbox of a create that nobody carries out any more, if it came to one. */
  async #survivor({ teamId, sandboxId }: KeyedCreate): Promise<Sandbox | null> {
    if (sandboxId === null) return null;
    const sandbox = await this.#store.sandboxes.find(teamId, { id: sandboxId });
    return sandbox === null || sandbox.state === 'creating' ? null : sandbox;
  }

  async #answer<T>(attempt: KeyedCreate, sandbox: Sandbox, present: (sandbox: Sandbox) => T): Promise<T> {
    const answer = present(sandbox);
    // The sandbox is there whether this can be written or not; without it, the sandbox is what answers the next request.
    await this.#store.idempotency.finish(attempt, JSON.stringify(answer)).catch(() => undefined);
    return answer;
  }

  #hash(text: string): string {
    return createHmac('sha256', this.#secret).update(text).digest('hex');
  }
}
