import type { Migration } from './index.ts';

export const snapshots: Migration = {
  version: 3,
  name: 'snapshots',
  async up(db) {
    for (const column of ['period_started_at', 'paused_at', 'auto_delete_at']) await db.schema.alterTable('sandboxes').addColumn(column, 'bigint').execute();
    for (const column of ['pause_cause', 'snapshot_id', 'source_snapshot_id']) await db.schema.alterTable('sandboxes').addColumn(column, 'text').execute();
    await db.updateTable('sandboxes').set((e) => ({ period_started_at: e.ref('started_at') })).execute();
    // Guards compare the whole text.
    for (const { id, lifecycle } of await db.selectFrom('sandboxes').select(['id', 'lifecycle']).execute()) {
      const whole = { ...(JSON.parse(lifecycle as string) as object), maxLifetimeSeconds: null, autoDeleteSeconds: null };
      await db.updateTable('sandboxes').set({ lifecycle: JSON.stringify(whole) }).where('id', '=', id).execute();
    }

    await db.schema
      .createTable('snapshots')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('team_id', 'text', (c) => c.notNull().references('teams.id'))
      // No reference: a snapshot outlives its sandbox.
      .addColumn('sandbox_id', 'text', (c) => c.notNull())
      .addColumn('source', 'text', (c) => c.notNull())
      .addColumn('name', 'text')
      .addColumn('idempotency_key', 'text')
      .addColumn('checkpoint', 'text')
      .addColumn('checkpoint_id', 'text')
      .addColumn('bytes', 'bigint', (c) => c.notNull())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addColumn('ready_at', 'bigint')
      .addColumn('captured', 'text', (c) => c.notNull())
      .addColumn('policy', 'text', (c) => c.notNull())
      .addColumn('envs_sealed', 'text', (c) => c.notNull())
      .execute();
    await db.schema.createIndex('snapshots_of_sandbox').on('snapshots').columns(['sandbox_id', 'created_at', 'id']).execute();
    await db.schema.createIndex('snapshots_of_team').on('snapshots').columns(['team_id', 'created_at', 'id']).execute();
    await db.schema.createIndex('snapshots_by_checkpoint').on('snapshots').column('checkpoint_id').execute();
    await db.schema.createIndex('snapshots_once_per_key').on('snapshots').columns(['sandbox_id', 'idempotency_key']).unique().execute();
  },
};
