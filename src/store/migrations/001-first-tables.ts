import { sql } from 'kysely';
import type { Migration } from './index.ts';

export const firstTables: Migration = {
  version: 1,
  name: 'first tables',
  async up(db) {
    await db.schema
      .createTable('store_facts')
      .addColumn('name', 'text', (c) => c.primaryKey())
      .addColumn('value', 'text', (c) => c.notNull())
      .execute();

    await db.schema
      .createTable('teams')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('name', 'text', (c) => c.notNull().unique())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .execute();

    await db.schema
      .createTable('api_keys')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('team_id', 'text', (c) => c.notNull().references('teams.id'))
      .addColumn('name', 'text', (c) => c.notNull())
      .addColumn('hash', 'text', (c) => c.notNull())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addColumn('revoked_at', 'bigint')
      .execute();
    // A key may be known once; what was revoked stays beside it for the record.
    await db.schema.createIndex('api_keys_live_hash').on('api_keys').column('hash').unique().where(sql<boolean>`revoked_at is null`).execute();
    await db.schema.createIndex('api_keys_team').on('api_keys').columns(['team_id', 'created_at']).execute();

    await db.schema
      .createTable('sandboxes')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('short_id', 'text', (c) => c.notNull())
      .addColumn('team_id', 'text', (c) => c.notNull().references('teams.id'))
      .addColumn('wire', 'text', (c) => c.notNull())
      .addColumn('state', 'text', (c) => c.notNull())
      .addColumn('template_id', 'text', (c) => c.notNull())
      .addColumn('template_name', 'text', (c) => c.notNull())
      .addColumn('template_digest', 'text', (c) => c.notNull())
      .addColumn('limits', 'text', (c) => c.notNull())
      .addColumn('default_user', 'text', (c) => c.notNull())
      .addColumn('metadata', 'text', (c) => c.notNull())
      .addColumn('envs_sealed', 'text', (c) => c.notNull())
      .addColumn('lifecycle', 'text', (c) => c.notNull())
      .addColumn('declared', 'text', (c) => c.notNull())
      .addColumn('policy', 'text', (c) => c.notNull())
      .addColumn('timeout_seconds', 'bigint', (c) => c.notNull())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addColumn('started_at', 'bigint')
      .addColumn('end_at', 'bigint')
      .addColumn('generation', 'bigint', (c) => c.notNull())
      .addColumn('guest', 'text')
      .addColumn('ended_at', 'bigint')
      .addColumn('end_reason', 'text')
      .addColumn('end_detail', 'text')
      .addCheckConstraint(
        'sandboxes_state_known',
        sql`state in ('creating', 'running', 'pausing', 'paused', 'resuming', 'killing', 'killed')`,
      )
      // The reason is written when the end is decided, so that a crash in between does not lose it.
      .addCheckConstraint('sandboxes_end_has_reason', sql`(state in ('killing', 'killed')) = (ended_at is not null and end_reason is not null)`)
      .addCheckConstraint('sandboxes_running_has_guest', sql`state <> 'running' or guest is not null`)
      .addCheckConstraint('sandboxes_killed_has_no_guest', sql`state <> 'killed' or guest is null`)
      .execute();
    await db.schema.createIndex('sandboxes_short_id').on('sandboxes').column('short_id').unique().execute();
    await db.schema.createIndex('sandboxes_listing').on('sandboxes').columns(['team_id', 'created_at', 'id']).execute();
    // Tombstones outnumber the living by far; these two keep recovery and purging off the table.
    await db.schema.createIndex('sandboxes_live').on('sandboxes').columns(['team_id', 'created_at', 'id']).where(sql<boolean>`state <> 'killed'`).execute();
    await db.schema.createIndex('sandboxes_tombstones').on('sandboxes').column('ended_at').where(sql<boolean>`state = 'killed'`).execute();

    await db.schema
      .createTable('sandbox_metadata')
      .addColumn('sandbox_id', 'text', (c) => c.notNull().references('sandboxes.id').onDelete('cascade'))
      .addColumn('team_id', 'text', (c) => c.notNull())
      .addColumn('key', 'text', (c) => c.notNull())
      .addColumn('value', 'text', (c) => c.notNull())
      .addPrimaryKeyConstraint('sandbox_metadata_key', ['sandbox_id', 'key'])
      .execute();
    // Without the value: it can be larger than an index entry may be.
    await db.schema.createIndex('sandbox_metadata_lookup').on('sandbox_metadata').columns(['team_id', 'key']).execute();

    await db.schema
      .createTable('process_deadlines')
      .addColumn('sandbox_id', 'text', (c) => c.notNull().references('sandboxes.id').onDelete('cascade'))
      .addColumn('process_id', 'text', (c) => c.notNull())
      .addColumn('team_id', 'text', (c) => c.notNull())
      .addColumn('at', 'bigint', (c) => c.notNull())
      .addPrimaryKeyConstraint('process_deadlines_key', ['sandbox_id', 'process_id'])
      .execute();

    await db.schema
      .createTable('events')
      .addColumn('seq', 'integer', (c) => c.primaryKey().autoIncrement())
      .addColumn('at', 'bigint', (c) => c.notNull())
      .addColumn('team_id', 'text', (c) => c.notNull())
      .addColumn('sandbox_id', 'text')
      .addColumn('category', 'text', (c) => c.notNull())
      .addColumn('name', 'text', (c) => c.notNull())
      .addColumn('detail', 'text', (c) => c.notNull())
      .execute();
    await db.schema.createIndex('events_of_sandbox').on('events').columns(['team_id', 'sandbox_id', 'seq']).execute();
    await db.schema.createIndex('events_by_time').on('events').column('at').execute();
  },
};
