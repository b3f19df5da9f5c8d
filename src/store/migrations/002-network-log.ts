import type { Migration } from './index.ts';

export const networkLog: Migration = {
  version: 2,
  name: 'network log',
  async up(db) {
    await db.schema
      .createTable('network_events')
      .addColumn('seq', 'integer', (c) => c.primaryKey().autoIncrement())
      .addColumn('at', 'bigint', (c) => c.notNull())
      .addColumn('team_id', 'text', (c) => c.notNull())
      .addColumn('sandbox_id', 'text', (c) => c.notNull())
      .addColumn('host', 'text')
      .addColumn('address', 'text')
      .addColumn('port', 'integer', (c) => c.notNull())
      .addColumn('protocol', 'text', (c) => c.notNull())
      .addColumn('verdict', 'text', (c) => c.notNull())
      .addColumn('match_rule', 'text', (c) => c.notNull())
      .addColumn('rule', 'text')
      .addColumn('reason', 'text', (c) => c.notNull())
      .addColumn('bytes_sent', 'bigint', (c) => c.notNull())
      .addColumn('bytes_received', 'bigint', (c) => c.notNull())
      .addColumn('duration_ms', 'bigint', (c) => c.notNull())
      .addColumn('count', 'bigint', (c) => c.notNull())
      .execute();
    await db.schema.createIndex('network_events_of_sandbox').on('network_events').columns(['sandbox_id', 'at', 'seq']).execute();
    await db.schema.createIndex('network_events_by_time').on('network_events').column('at').execute();
  },
};
