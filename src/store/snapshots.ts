import type { ExpressionBuilder, Expression, Kysely, SqlBool } from 'kysely';
import { PaddockError } from '../core/errors.ts';
import type { CheckpointRef } from '../core/host.ts';
import type { AuthorityId, SandboxId, SnapshotId, TeamId } from '../core/ids.ts';
import type { Captured, Snapshot, SnapshotSource } from '../core/snapshot.ts';
import type { SnapshotPage, SnapshotQuery, SnapshotStore } from '../core/store.ts';
import { frozenJson, stored } from './fault.ts';
import type { Policies } from './policies.ts';
import type { Schema, SnapshotRow } from './schema.ts';
import type { Sealer } from './sealer.ts';

export class SqlSnapshots implements SnapshotStore {
  readonly #db: Kysely<Schema>;
  readonly #sealer: Sealer;
  readonly #policies: Policies;

  constructor(db: Kysely<Schema>, sealer: Sealer, policies: Policies) {
    this.#db = db;
    this.#sealer = sealer;
    this.#policies = policies;
  }

  async insert(snapshot: Snapshot): Promise<void> {
    await stored('insert the snapshot', () => this.#db.insertInto('snapshots').values(snapshotRow(snapshot, this.#sealer, this.#policies)).execute());
  }

  async finish(id: SnapshotId, checkpoint: CheckpointRef, readyAt: number): Promise<Snapshot | null> {
    const row = await stored('finish the snapshot', () =>
      this.#db
        .updateTable('snapshots')
        .set({ checkpoint: JSON.stringify(checkpoint), checkpoint_id: checkpoint.id, bytes: checkpoint.bytes, ready_at: readyAt })
        .where('id', '=', id)
        .returningAll()
        .executeTakeFirst(),
    );
    return row === undefined ? null : this.#fromRow(row);
  }

  async rename(id: SnapshotId, name: string): Promise<Snapshot | null> {
    const row = await stored('rename the snapshot', () => this.#db.updateTable('snapshots').set({ name }).where('id', '=', id).returningAll().executeTakeFirst());
    return row === undefined ? null : this.#fromRow(row);
  }

  async find(teamId: TeamId | null, id: SnapshotId): Promise<Snapshot | null> {
    const row = await stored('read the snapshot', () => {
      const query = this.#db.selectFrom('snapshots').selectAll().where('id', '=', id);
      return (teamId === null ? query : query.where('team_id', '=', teamId)).executeTakeFirst();
    });
    return row === undefined ? null : this.#fromRow(row);
  }

  async findByKey(teamId: TeamId, sandboxId: SandboxId, idempotencyKey: string): Promise<Snapshot | null> {
    const row = await stored('read the snapshot', () =>
      this.#db.selectFrom('snapshots').selectAll().where('team_id', '=', teamId).where('sandbox_id', '=', sandboxId).where('idempotency_key', '=', idempotencyKey).executeTakeFirst(),
    );
    return row === undefined ? null : this.#fromRow(row);
  }

  async list(teamId: TeamId, query: SnapshotQuery): Promise<SnapshotPage> {
    const matching = (e: ExpressionBuilder<Schema, 'snapshots'>): Expression<SqlBool> =>
      e.and([e('team_id', '=', teamId), e('source', 'in', query.sources), ...(query.sandboxId === undefined ? [] : [e('sandbox_id', '=', query.sandboxId)])]);
    return stored('list the snapshots', async () => {
      const counted = await this.#db.selectFrom('snapshots').where(matching).select((e) => e.fn.countAll<number>().as('total')).executeTakeFirstOrThrow();
      let page = this.#db.selectFrom('snapshots').selectAll().where(matching);
      const after = query.after;
      if (after !== undefined) page = page.where((e) => e.or([e('created_at', '<', after.createdAt), e.and([e('created_at', '=', after.createdAt), e('id', '<', after.id)])]));
      page = page.orderBy('created_at', 'desc').orderBy('id', 'desc').limit(query.limit + 1);
      if (query.offset !== undefined && query.offset > 0) page = page.offset(query.offset);
      const rows = await page.execute();
      return Object.freeze({ items: Object.freeze(rows.slice(0, query.limit).map((row) => this.#fromRow(row))), total: Number(counted.total), more: rows.length > query.limit });
    });
  }

  async all(sandboxId?: SandboxId): Promise<readonly Snapshot[]> {
    const rows = await stored('read the snapshots', () => {
      const query = this.#db.selectFrom('snapshots').selectAll().orderBy('created_at').orderBy('id');
      return (sandboxId === undefined ? query : query.where('sandbox_id', '=', sandboxId)).execute();
    });
    return rows.map((row) => this.#fromRow(row));
  }

  async remove(id: SnapshotId): Promise<boolean> {
    const result = await stored('remove the snapshot', async () => {
      // One statement: a pause that begins to need it, and its removal, cannot both succeed.
      const removed = await this.#db
        .deleteFrom('snapshots')
        .where('id', '=', id)
        .where((e) => e.not(e.exists(e.selectFrom('sandboxes').select('sandboxes.id').where('sandboxes.snapshot_id', '=', id).where('sandboxes.state', 'in', ['paused', 'resuming']))))
        .executeTakeFirst();
      if (removed.numDeletedRows > 0n) return true;
      return (await this.#db.selectFrom('snapshots').select('id').where('id', '=', id).executeTakeFirst()) === undefined ? false : null;
    });
    if (result === null) throw new PaddockError('conflict', 'the snapshot holds the state of a paused sandbox; resume or kill that first');
    return result;
  }

  async usage(teamId: TeamId): Promise<{ count: number; unfinished: number; bytes: number }> {
    return stored('count the snapshots', async () => {
      const counted = await this.#db
        .selectFrom('snapshots')
        .where('team_id', '=', teamId)
        .where('source', '=', 'manual')
        .select((e) => [e.fn.countAll<number>().as('count'), e.fn.count<number>('ready_at').as('ready')])
        .executeTakeFirstOrThrow();
      const sized = await this.#db
        .selectFrom((e) => e.selectFrom('snapshots').select((f) => ['checkpoint_id', f.fn.max('bytes').as('bytes')]).where('team_id', '=', teamId).where('checkpoint_id', 'is not', null).groupBy('checkpoint_id').as('each'))
        .select((e) => e.fn.sum<number | null>('each.bytes').as('bytes'))
        .executeTakeFirstOrThrow();
      return { count: Number(counted.count), unfinished: Number(counted.count) - Number(counted.ready), bytes: Number(sized.bytes ?? 0) };
    });
  }

  async names(checkpointId: string): Promise<boolean> {
    const row = await stored('look for a checkpoint', () => this.#db.selectFrom('snapshots').select('id').where('checkpoint_id', '=', checkpointId).executeTakeFirst());
    return row !== undefined;
  }

  #fromRow(row: SnapshotRow): Snapshot {
    return Object.freeze({
      id: row.id as SnapshotId,
      teamId: row.team_id as TeamId,
      sandboxId: row.sandbox_id as SandboxId,
      source: row.source as SnapshotSource,
      name: row.name,
      idempotencyKey: row.idempotency_key,
      checkpoint: row.checkpoint === null ? null : frozenJson<CheckpointRef>(row.checkpoint),
      createdAt: row.created_at,
      readyAt: row.ready_at,
      captured: Object.freeze({
        ...frozenJson<Omit<Captured, 'policy' | 'envs' | 'authorityId'>>(row.captured),
        authorityId: row.authority_id as AuthorityId | null,
        policy: this.#policies.read(row.policy),
        envs: frozenJson<Captured['envs']>(this.#sealer.open(envsOf(row.id), row.envs_sealed)),
      }),
    });
  }
}

/** A snapshot as its row, also for whoever writes it together with something else. */
export function snapshotRow(snapshot: Snapshot, sealer: Sealer, policies: Policies): SnapshotRow {
  const { policy, envs, authorityId, ...captured } = snapshot.captured;
  return {
    id: snapshot.id,
    team_id: snapshot.teamId,
    sandbox_id: snapshot.sandboxId,
    source: snapshot.source,
    name: snapshot.name,
    idempotency_key: snapshot.idempotencyKey,
    checkpoint: snapshot.checkpoint === null ? null : JSON.stringify(snapshot.checkpoint),
    checkpoint_id: snapshot.checkpoint?.id ?? null,
    bytes: snapshot.checkpoint?.bytes ?? 0,
    created_at: snapshot.createdAt,
    ready_at: snapshot.readyAt,
    captured: JSON.stringify(captured),
    authority_id: authorityId,
    policy: policies.write(policy),
    envs_sealed: sealer.seal(envsOf(snapshot.id), JSON.stringify(envs)),
  };
}

/** The place of the environment in a row. */
export function envsOf(id: string): string {
  return `snapshots/${id}/envs`;
}
