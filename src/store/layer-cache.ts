import type { Kysely } from 'kysely';
import type { TeamId } from '../core/ids.ts';
import type { LayerId } from '../core/templates/build-host.ts';
import type { LayerCache } from '../core/templates/template.ts';
import { stored } from './fault.ts';
import type { Schema } from './schema.ts';

export class SqlLayerCache implements LayerCache {
  readonly #db: Kysely<Schema>;

  constructor(db: Kysely<Schema>) {
    this.#db = db;
  }

  async find(teamId: TeamId, key: string, at: number): Promise<LayerId | null> {
    const row = await stored('look for a layer', () =>
      this.#db.updateTable('layer_cache').set({ used_at: at }).where('team_id', '=', teamId).where('key', '=', key).returning('layer_id').executeTakeFirst(),
    );
    return row?.layer_id ?? null;
  }

  async put(teamId: TeamId, key: string, layer: LayerId, at: number): Promise<void> {
    await stored('remember a layer', () =>
      this.#db
        .insertInto('layer_cache')
        .values({ team_id: teamId, key, layer_id: layer, used_at: at })
        .onConflict((c) => c.columns(['team_id', 'key']).doUpdateSet({ layer_id: layer, used_at: at }))
        .execute(),
    );
  }

  async remove(teamId: TeamId, key: string): Promise<void> {
    await stored('forget a layer', () => this.#db.deleteFrom('layer_cache').where('team_id', '=', teamId).where('key', '=', key).execute());
  }

  async layers(): Promise<ReadonlySet<LayerId>> {
    const rows = await stored('read the layers', () => this.#db.selectFrom('layer_cache').select('layer_id').distinct().execute());
    return new Set(rows.map((row) => row.layer_id));
  }

  async purge(usedBefore: number): Promise<void> {
    await stored('forget old layers', () => this.#db.deleteFrom('layer_cache').where('used_at', '<', usedBefore).execute());
  }
}
