import type { Migration } from './index.ts';

export const idempotency: Migration = {
  version: 9,
  name: 'idempotency',
  async up(db) {
    await db.schema
      .createTable('idempotency_keys')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('team_id', 'text', (c) => c.notNull().references('teams.id'))
      .addColumn('key_hash', 'text', (c) => c.notNull())
      .addColumn('body_hash', 'text', (c) => c.notNull())
      .addColumn('run', 'text', (c) => c.notNull())
      .addColumn('sandbox_id', 'text')
      .addColumn('answer_sealed', 'text')
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addUniqueConstraint('idempotency_keys_key', ['team_id', 'key_hash'])
      .execute();
    await db.schema.createIndex('idempotency_keys_age').on('idempotency_keys').columns(['team_id', 'created_at']).execute();
  },
};
