import { sql, type Kysely } from 'kysely';
import type { IdempotencyStore, KeyedCreate } from '../core/idempotency.ts';
import type { SandboxId, TeamId } from '../core/ids.ts';
import { stored } from './fault.ts';
import type { IdempotencyKeyRow, Schema } from './schema.ts';
import type { Sealer } from './sealer.ts';

/** Kept of one team: finished ones beyond these are forgotten, the oldest first. */
const keptPerTeam = 10_000;
const keptBytesPerTeam = 64 * 1024 * 1024;
/** How much may come before a team's are counted again. */
const trimmedEvery = 500;
const trimmedEveryBytes = 4 * 1024 * 1024;

/** Answers hold tokens and environment variables, and are sealed. */
export class SqlIdempotency implements IdempotencyStore {
  readonly #db: Kysely<Schema>;
  readonly #sealer: Sealer;
  readonly #kept: { readonly count: number; readonly bytes: number };
  /** Since the team was last trimmed. */
  readonly #added = new Map<TeamId, { count: number; bytes: number }>();

  /** @param bounds for tests. */
  constructor(db: Kysely<Schema>, sealer: Sealer, bounds: { readonly count?: number; readonly bytes?: number } = {}) {
    this.#db = db;
    this.#sealer = sealer;
    this.#kept = { count: bounds.count ?? keptPerTeam, bytes: bounds.bytes ?? keptBytesPerTeam };
  }

  async claim(create: KeyedCreate, notBefore: number): Promise<KeyedCreate | null> {
    return stored('claim the idempotency key', () =>
      this.#db.transaction().execute(async (work) => {
        const row = await work.selectFrom('idempotency_keys').selectAll().where('team_id', '=', create.teamId).where('key_hash', '=', create.keyHash).executeTakeFirst();
        if (row !== undefined && row.created_at > notBefore) return this.#fromRow(row);
        const fresh = toRow(create);
        await work.insertInto('idempotency_keys').values(fresh).onConflict((c) => c.columns(['team_id', 'key_hash']).doUpdateSet(fresh)).execute();
        return null;
      }),
    );
  }

  async reclaim(dead: KeyedCreate, create: KeyedCreate): Promise<boolean> {
    const result = await stored('claim the idempotency key', () =>
      this.#of(dead).set(toRow(create)).where('answer_sealed', 'is', null).where('sandbox_id', dead.sandboxId === null ? 'is' : '=', dead.sandboxId).executeTakeFirst(),
    );
    return result.numUpdatedRows > 0n;
  }

  async name(create: KeyedCreate, sandboxId: SandboxId): Promise<void> {
    await stored('name the sandbox of the idempotency key', () => this.#of(create).set({ sandbox_id: sandboxId }).execute());
  }

  async finish(create: KeyedCreate, answer: string): Promise<void> {
    const sealed = this.#sealer.seal(answerOf(idOf(create)), answer);
    await stored('finish the idempotency key', () => this.#of(create).set({ answer_sealed: sealed }).execute());
    const added = this.#added.get(create.teamId) ?? { count: trimmedEvery, bytes: 0 };
    added.count++;
    added.bytes += sealed.length;
    this.#added.set(create.teamId, added);
    if (added.count > Math.min(trimmedEvery, this.#kept.count) || added.bytes > Math.min(trimmedEveryBytes, this.#kept.bytes)) await this.#trim(create.teamId);
  }

  async release(create: KeyedCreate): Promise<void> {
    await stored('release the idempotency key', () =>
      this.#db.deleteFrom('idempotency_keys').where('team_id', '=', create.teamId).where('key_hash', '=', create.keyHash).where('run', '=', create.run).where('answer_sealed', 'is', null).execute(),
    );
  }

  async purge(before: number): Promise<void> {
    await stored('purge idempotency keys', () => this.#db.deleteFrom('idempotency_keys').where('created_at', '<=', before).execute());
  }

  #of(create: KeyedCreate) {
    return this.#db.updateTable('idempotency_keys').where('team_id', '=', create.teamId).where('key_hash', '=', create.keyHash).where('run', '=', create.run);
  }

  async #trim(teamId: TeamId): Promise<void> {
    this.#added.set(teamId, { count: 0, bytes: 0 });
    const { count, bytes } = this.#kept;
    await stored('trim idempotency keys', () =>
      this.#db
        .deleteFrom('idempotency_keys')
        .where('team_id', '=', teamId)
        .where('key_hash', 'in', (e) =>
          e
            .selectFrom((inner) =>
              inner
                .selectFrom('idempotency_keys')
                .where('team_id', '=', teamId)
                .where('answer_sealed', 'is not', null)
                .select(['key_hash', sql<number>`row_number() over (order by created_at desc, key_hash)`.as('place'), sql<number>`sum(length(answer_sealed)) over (order by created_at desc, key_hash)`.as('total')])
                .as('ranked'),
            )
            .select('key_hash')
            .where((w) => w.or([w('place', '>', count), w('total', '>', bytes)])),
        )
        .execute(),
    );
  }

  #fromRow(row: IdempotencyKeyRow): KeyedCreate {
    const create = { teamId: row.team_id as TeamId, keyHash: row.key_hash, bodyHash: row.body_hash, run: row.run, sandboxId: row.sandbox_id as SandboxId | null, createdAt: row.created_at };
    return Object.freeze({ ...create, answer: row.answer_sealed === null ? null : this.#sealer.open(answerOf(row.id), row.answer_sealed) });
  }
}

function toRow(create: KeyedCreate): IdempotencyKeyRow {
  return { id: idOf(create), team_id: create.teamId, key_hash: create.keyHash, body_hash: create.bodyHash, run: create.run, sandbox_id: create.sandboxId, answer_sealed: null, created_at: create.createdAt };
}

function idOf({ teamId, keyHash }: Pick<KeyedCreate, 'teamId' | 'keyHash'>): string {
  return `${teamId}/${keyHash}`;
}

/** Where the answer of a row is sealed. */
export function answerOf(id: string): string {
  return `idempotency_keys/${id}/answer`;
}
