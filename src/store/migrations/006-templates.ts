import type { Migration } from './index.ts';

export const templates: Migration = {
  version: 6,
  name: 'templates',
  async up(db) {
    // What the template says of processes, as JSON; null for none.
    await db.schema.alterTable('sandboxes').addColumn('template_runtime', 'text').execute();

    await db.schema
      .createTable('templates')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('team_id', 'text', (c) => c.notNull().references('teams.id'))
      .addColumn('name', 'text', (c) => c.notNull())
      .addColumn('status', 'text', (c) => c.notNull())
      .addColumn('spec_sealed', 'text', (c) => c.notNull())
      .addColumn('spec_hash', 'text', (c) => c.notNull())
      .addColumn('error_message', 'text')
      .addColumn('artefact_id', 'text')
      .addColumn('latest_build_id', 'text', (c) => c.notNull())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addColumn('built_at', 'bigint')
      .addColumn('size_bytes', 'bigint')
      .execute();
    await db.schema.createIndex('templates_by_name').on('templates').columns(['team_id', 'name']).unique().execute();

    await db.schema
      .createTable('template_builds')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('template_id', 'text', (c) => c.notNull().references('templates.id').onDelete('cascade'))
      .addColumn('team_id', 'text', (c) => c.notNull())
      .addColumn('status', 'text', (c) => c.notNull())
      .addColumn('spec_hash', 'text', (c) => c.notNull())
      .addColumn('error_message', 'text')
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addColumn('started_at', 'bigint')
      .addColumn('finalized_at', 'bigint')
      .execute();
    await db.schema.createIndex('builds_of_template').on('template_builds').columns(['template_id', 'created_at', 'id']).execute();

    await db.schema
      .createTable('build_logs')
      .addColumn('build_id', 'text', (c) => c.notNull().references('template_builds.id').onDelete('cascade'))
      .addColumn('seq', 'bigint', (c) => c.notNull())
      .addColumn('at', 'bigint', (c) => c.notNull())
      .addColumn('stream', 'text', (c) => c.notNull())
      .addColumn('text', 'text', (c) => c.notNull())
      .addPrimaryKeyConstraint('build_logs_key', ['build_id', 'seq'])
      .execute();

    await db.schema
      .createTable('template_artefacts')
      .addColumn('id', 'text', (c) => c.primaryKey())
      // No references: it outlives its template while sandboxes need it.
      .addColumn('template_id', 'text', (c) => c.notNull())
      .addColumn('team_id', 'text', (c) => c.notNull())
      .addColumn('digest', 'text', (c) => c.notNull())
      .addColumn('root', 'text', (c) => c.notNull())
      .addColumn('limits', 'text', (c) => c.notNull())
      .addColumn('surroundings_sealed', 'text', (c) => c.notNull())
      .addColumn('size_bytes', 'bigint', (c) => c.notNull())
      .addColumn('spec_hash', 'text', (c) => c.notNull())
      .addColumn('start', 'text')
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .execute();

    await db.schema
      .createTable('layer_cache')
      .addColumn('team_id', 'text', (c) => c.notNull())
      .addColumn('key', 'text', (c) => c.notNull())
      .addColumn('layer_id', 'text', (c) => c.notNull())
      .addColumn('used_at', 'bigint', (c) => c.notNull())
      .addPrimaryKeyConstraint('layer_cache_key', ['team_id', 'key'])
      .execute();
  },
};
