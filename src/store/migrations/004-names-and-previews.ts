import type { Migration } from './index.ts';

export const namesAndPreviews: Migration = {
  version: 4,
  name: 'names and previews',
  async up(db) {
    await db.schema.alterTable('sandboxes').addColumn('name', 'text', (c) => c.notNull().defaultTo('')).execute();
    await db.schema
      .createTable('preview_ports')
      .addColumn('sandbox_id', 'text', (c) => c.notNull().references('sandboxes.id').onDelete('cascade'))
      .addColumn('port', 'integer', (c) => c.notNull())
      .addColumn('access', 'text', (c) => c.notNull())
      .addColumn('token_version', 'integer', (c) => c.notNull())
      .addPrimaryKeyConstraint('preview_ports_key', ['sandbox_id', 'port'])
      .execute();
    await db.schema.createIndex('events_of_team').on('events').columns(['team_id', 'seq']).execute();
  },
};
