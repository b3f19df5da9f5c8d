import type { Kysely } from 'kysely';
import type { TeamId, VolumeId } from '../core/ids.ts';
import type { VolumeLock, VolumeLockStore, VolumeStore } from '../core/store.ts';
import type { Volume } from '../core/volume.ts';
import type { VolumeUsage } from '../core/volume-storage.ts';
import { frozenJson, stored } from './fault.ts';
import type { Schema, VolumeRow } from './schema.ts';

export class SqlVolumes implements VolumeStore {
  readonly #db: Kysely<Schema>;

  constructor(db: Kysely<Schema>) {
    this.#db = db;
  }

  async insert({ id, teamId, name, bytes, entries, metadata, createdAt, updatedAt }: Volume): Promise<void> {
    const row: VolumeRow = { id, team_id: teamId, name, bytes, entries, metadata: JSON.stringify(metadata), created_at: createdAt, updated_at: updatedAt };
    await stored('insert the volume', () => this.#db.insertInto('volumes').values(row).execute());
  }

  async find(teamId: TeamId, id: VolumeId): Promise<Volume | null> {
    const row = await stored('read the volume', () => this.#db.selectFrom('volumes').selectAll().where('id', '=', id).where('team_id', '=', teamId).executeTakeFirst());
    return row === undefined ? null : fromRow(row);
  }

  async list(teamId: TeamId, { limit, after }: { readonly limit: number; readonly after?: Pick<Volume, 'createdAt' | 'id'> }): Promise<readonly Volume[]> {
    let query = this.#db.selectFrom('volumes').selectAll().where('team_id', '=', teamId);
    if (after !== undefined) query = query.where((e) => e.or([e('created_at', '<', after.createdAt), e.and([e('created_at', '=', after.createdAt), e('id', '<', after.id)])]));
    const rows = await stored('list the volumes', () => query.orderBy('created_at', 'desc').orderBy('id', 'desc').limit(limit).execute());
    return rows.map(fromRow);
  }

  async ids(): Promise<readonly VolumeId[]> {
    const rows = await stored('list the volumes', () => this.#db.selectFrom('volumes').select('id').execute());
    return rows.map(({ id }) => id as VolumeId);
  }

  async count(teamId: TeamId): Promise<number> {
    const row = await stored('count the volumes', () => this.#db.selectFrom('volumes').where('team_id', '=', teamId).select((e) => e.fn.countAll<number>().as('count')).executeTakeFirstOrThrow());
    return Number(row.count);
  }

  async resize(id: VolumeId, { bytes, entries }: VolumeUsage, updatedAt: number): Promise<void> {
    await stored('update the volume', () => this.#db.updateTable('volumes').set({ bytes, entries, updated_at: updatedAt }).where('id', '=', id).execute());
  }

  async remove(teamId: TeamId, id: VolumeId): Promise<boolean> {
    const { numDeletedRows } = await stored('remove the volume', () => this.#db.deleteFrom('volumes').where('id', '=', id).where('team_id', '=', teamId).executeTakeFirst());
    return numDeletedRows > 0n;
  }
}

export class SqlVolumeLocks implements VolumeLockStore {
  readonly #db: Kysely<Schema>;

  constructor(db: Kysely<Schema>) {
    this.#db = db;
  }

  async acquire({ volumeId, path, tokenHash, expiresAt }: VolumeLock, now: number, most: number): Promise<'acquired' | 'held' | 'too_many'> {
    return stored('lock a path', () =>
      this.#db.transaction().execute(async (db) => {
        await db.deleteFrom('volume_locks').where('volume_id', '=', volumeId).where('expires_at', '<=', now).execute();
        const { count } = await db.selectFrom('volume_locks').where('volume_id', '=', volumeId).select((e) => e.fn.countAll<number>().as('count')).executeTakeFirstOrThrow();
        if ((await db.selectFrom('volume_locks').select('path').where('volume_id', '=', volumeId).where('path', '=', path).executeTakeFirst()) !== undefined) return 'held';
        if (Number(count) >= most) return 'too_many';
        await db.insertInto('volume_locks').values({ volume_id: volumeId, path, token_hash: tokenHash, expires_at: expiresAt }).execute();
        return 'acquired';
      }),
    );
  }

  async renew({ volumeId, path, tokenHash, expiresAt }: VolumeLock, now: number): Promise<boolean> {
    const { numUpdatedRows } = await stored('renew a lock', () =>
      this.#db.updateTable('volume_locks').set({ expires_at: expiresAt }).where('volume_id', '=', volumeId).where('path', '=', path).where('token_hash', '=', tokenHash).where('expires_at', '>', now).executeTakeFirst(),
    );
    return numUpdatedRows > 0n;
  }

  async release(volumeId: VolumeId, path: string, tokenHash: string): Promise<boolean> {
    const { numDeletedRows } = await stored('release a lock', () =>
      this.#db.deleteFrom('volume_locks').where('volume_id', '=', volumeId).where('path', '=', path).where('token_hash', '=', tokenHash).executeTakeFirst(),
    );
    return numDeletedRows > 0n;
  }

  async find(volumeId: VolumeId, path: string, now: number): Promise<VolumeLock | null> {
    const row = await stored('read a lock', () => this.#db.selectFrom('volume_locks').selectAll().where('volume_id', '=', volumeId).where('path', '=', path).where('expires_at', '>', now).executeTakeFirst());
    return row === undefined ? null : { volumeId, path, tokenHash: row.token_hash, expiresAt: row.expires_at };
  }
}

function fromRow(row: VolumeRow): Volume {
  return Object.freeze({
    id: row.id as VolumeId,
    teamId: row.team_id as TeamId,
    name: row.name,
    bytes: row.bytes,
    entries: row.entries,
    metadata: frozenJson<Volume['metadata']>(row.metadata),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  });
}
