import type { Migration } from './index.ts';

export const keyScopes: Migration = {
  version: 10,
  name: 'key scopes',
  async up(db) {
    // What there is may do everything, as before.
    await db.schema.alterTable('api_keys').addColumn('scope', 'text', (c) => c.notNull().defaultTo('admin')).execute();
    await db.schema.alterTable('api_keys').addColumn('expires_at', 'bigint').execute();
    await db.schema.alterTable('api_keys').addColumn('last_used_at', 'bigint').execute();
  },
};
