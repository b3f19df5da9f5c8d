import { randomUUID } from 'node:crypto';
import type { Kysely } from 'kysely';
import type { TeamId } from '../core/ids.ts';
import type { ApiKey, HashedKey, KeyScope, KeyStore } from '../core/store.ts';
import { stored } from './fault.ts';
import type { ApiKeyRow, Schema } from './schema.ts';

export class SqlKeys implements KeyStore {
  readonly #db: Kysely<Schema>;

  constructor(db: Kysely<Schema>) {
    this.#db = db;
  }

  async defaultTeam(): Promise<TeamId> {
    return stored('make the default team', async () => {
      await this.#db
        .insertInto('teams')
        .values({ id: randomUUID(), name: 'default', created_at: Date.now() })
        .onConflict((conflict) => conflict.column('name').doNothing())
        .execute();
      const row = await this.#db.selectFrom('teams').select('id').where('name', '=', 'default').executeTakeFirstOrThrow();
      return row.id as TeamId;
    });
  }

  async createdAt(teamId: TeamId): Promise<number | null> {
    const row = await stored('read the team', () => this.#db.selectFrom('teams').select('created_at').where('id', '=', teamId).executeTakeFirst());
    return row?.created_at ?? null;
  }

  async findByHash(hash: string): Promise<HashedKey | null> {
    const rows = await stored('look up the API key', () => this.#db.selectFrom('api_keys').selectAll().where('hash', '=', hash).execute());
    // A revoked key may have been added again: the live one counts.
    const row = rows.find((candidate) => candidate.revoked_at === null) ?? rows[0];
    return row === undefined ? null : Object.freeze({ ...fromRow(row), hash: row.hash });
  }

  async insert(key: ApiKey, hash: string): Promise<void> {
    await stored('add the API key', () =>
      this.#db
        .insertInto('api_keys')
        .values({ id: key.id, team_id: key.teamId, name: key.name, hash, created_at: key.createdAt, revoked_at: key.revokedAt, scope: key.scope, expires_at: key.expiresAt, last_used_at: key.lastUsedAt })
        .execute(),
    );
  }

  async list(teamId: TeamId): Promise<readonly ApiKey[]> {
    const rows = await stored('list the API keys', () => this.#db.selectFrom('api_keys').selectAll().where('team_id', '=', teamId).orderBy('created_at').orderBy('id').execute());
    return rows.map((row) => Object.freeze(fromRow(row)));
  }

  async revoke(teamId: TeamId, keyId: string, at: number): Promise<boolean> {
    const result = await stored('revoke the API key', () =>
      this.#db.updateTable('api_keys').set({ revoked_at: at }).where('id', '=', keyId).where('team_id', '=', teamId).where('revoked_at', 'is', null).executeTakeFirst(),
    );
    return result.numUpdatedRows > 0n;
  }

  async invalid(keyIds: readonly string[], at: number): Promise<readonly string[]> {
    const rows = await stored('look up the API keys', () =>
      this.#db.selectFrom('api_keys').select('id').where('id', 'in', keyIds).where((e) => e.or([e('revoked_at', 'is not', null), e('expires_at', '<=', at)])).execute(),
    );
    return rows.map(({ id }) => id);
  }

  async used(keyId: string, at: number): Promise<void> {
    await stored('note the use of the API key', () => this.#db.updateTable('api_keys').set({ last_used_at: at }).where('id', '=', keyId).execute());
  }
}

/** A scope that this version does not know gives the least. */
function readScope(text: string): KeyScope {
  return text === 'admin' || text === 'write' ? text : 'read';
}

function fromRow(row: ApiKeyRow): ApiKey {
  return { id: row.id, teamId: row.team_id as TeamId, name: row.name, createdAt: row.created_at, revokedAt: row.revoked_at, scope: readScope(row.scope), expiresAt: row.expires_at, lastUsedAt: row.last_used_at };
}
