import { sql } from 'kysely';
import type { Migration } from './index.ts';

export const secrets: Migration = {
  version: 7,
  name: 'secrets',
  async up(db) {
    for (const table of ['sandboxes', 'snapshots']) await db.schema.alterTable(table).addColumn('authority_id', 'text').execute();

    await db.schema
      .createTable('authorities')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('certificate', 'text', (c) => c.notNull())
      .addColumn('key_sealed', 'text', (c) => c.notNull())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .execute();
    for (const table of ['sandboxes', 'snapshots']) await db.schema.createIndex(`${table}_by_authority`).on(table).column('authority_id').execute();

    await db.schema
      .createTable('secret_environments')
      .addColumn('team_id', 'text', (c) => c.notNull().references('teams.id'))
      .addColumn('name', 'text', (c) => c.notNull())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addPrimaryKeyConstraint('secret_environments_key', ['team_id', 'name'])
      .execute();

    await db.schema
      .createTable('secrets')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('team_id', 'text', (c) => c.notNull().references('teams.id'))
      .addColumn('environment', 'text', (c) => c.notNull())
      .addColumn('name', 'text', (c) => c.notNull())
      .addColumn('provider', 'text')
      .addColumn('rules', 'text', (c) => c.notNull())
      .addColumn('value_sealed', 'text')
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addColumn('updated_at', 'bigint', (c) => c.notNull())
      .addColumn('rotated_at', 'bigint')
      .addColumn('rotation_interval_days', 'integer')
      .addColumn('last_used_at', 'bigint')
      .addColumn('deleted_at', 'bigint')
      .addCheckConstraint('secrets_deleted_have_no_value', sql`(deleted_at is null) = (value_sealed is not null)`)
      .execute();
    await db.schema.createIndex('secrets_live_name').on('secrets').columns(['team_id', 'environment', 'name']).unique().where(sql<boolean>`deleted_at is null`).execute();
    await db.schema.createIndex('secrets_of_team').on('secrets').columns(['team_id', 'created_at', 'id']).execute();

    await db.schema
      .createTable('secret_bindings')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('team_id', 'text', (c) => c.notNull().references('teams.id'))
      // No reference: a snapshot outlives its sandbox, and what is made from it gets the bindings anew.
      .addColumn('sandbox_id', 'text', (c) => c.notNull())
      .addColumn('secret_id', 'text', (c) => c.notNull().references('secrets.id'))
      .addColumn('variable', 'text', (c) => c.notNull())
      .addColumn('stand_in_sealed', 'text', (c) => c.notNull())
      .addColumn('when_used', 'text', (c) => c.notNull())
      .addColumn('inherited', 'integer', (c) => c.notNull())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addColumn('detached_at', 'bigint')
      .execute();
    await db.schema.createIndex('secret_bindings_live').on('secret_bindings').columns(['sandbox_id', 'variable']).unique().where(sql<boolean>`detached_at is null and inherited = 0`).execute();
    await db.schema.createIndex('secret_bindings_of_sandbox').on('secret_bindings').columns(['sandbox_id', 'created_at']).execute();
    await db.schema.createIndex('secret_bindings_of_secret').on('secret_bindings').column('secret_id').execute();

    await db.schema
      .createTable('secret_uses')
      .addColumn('seq', 'integer', (c) => c.primaryKey().autoIncrement())
      .addColumn('at', 'bigint', (c) => c.notNull())
      .addColumn('team_id', 'text', (c) => c.notNull())
      .addColumn('secret_id', 'text', (c) => c.notNull())
      .addColumn('sandbox_id', 'text', (c) => c.notNull())
      .addColumn('method', 'text', (c) => c.notNull())
      .addColumn('host', 'text', (c) => c.notNull())
      .addColumn('path', 'text', (c) => c.notNull())
      .addColumn('status', 'integer', (c) => c.notNull())
      .addColumn('upstream_status', 'integer')
      .addColumn('latency_ms', 'bigint', (c) => c.notNull())
      .addColumn('error_code', 'text')
      .execute();
    await db.schema.createIndex('secret_uses_of_secret').on('secret_uses').columns(['secret_id', 'seq']).execute();
    await db.schema.createIndex('secret_uses_of_sandbox').on('secret_uses').columns(['sandbox_id', 'at', 'seq']).execute();
    await db.schema.createIndex('secret_uses_by_time').on('secret_uses').column('at').execute();
  },
};
