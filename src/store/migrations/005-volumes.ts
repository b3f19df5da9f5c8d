import type { Migration } from './index.ts';

export const volumes: Migration = {
  version: 5,
  name: 'volumes',
  async up(db) {
    await db.schema
      .createTable('volumes')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('team_id', 'text', (c) => c.notNull().references('teams.id'))
      .addColumn('name', 'text', (c) => c.notNull())
      .addColumn('bytes', 'bigint', (c) => c.notNull())
      .addColumn('entries', 'bigint', (c) => c.notNull())
      .addColumn('metadata', 'text', (c) => c.notNull())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addColumn('updated_at', 'bigint', (c) => c.notNull())
      .execute();
    await db.schema.createIndex('volumes_of_team').on('volumes').columns(['team_id', 'created_at', 'id']).execute();
    await db.schema
      .createTable('volume_locks')
      .addColumn('volume_id', 'text', (c) => c.notNull().references('volumes.id').onDelete('cascade'))
      .addColumn('path', 'text', (c) => c.notNull())
      .addColumn('token_hash', 'text', (c) => c.notNull())
      .addColumn('expires_at', 'bigint', (c) => c.notNull())
      .addPrimaryKeyConstraint('volume_locks_key', ['volume_id', 'path'])
      .execute();
  },
};
