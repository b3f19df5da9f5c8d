import { sql, type Kysely, type Selectable } from 'kysely';
import type { SandboxId } from '../core/ids.ts';
import type { PreviewPort, PreviewPortStore } from '../core/store.ts';
import { stored } from './fault.ts';
import type { PreviewPortRow, Schema } from './schema.ts';

export class SqlPreviewPorts implements PreviewPortStore {
  readonly #db: Kysely<Schema>;

  constructor(db: Kysely<Schema>) {
    this.#db = db;
  }

  async list(sandboxId: SandboxId): Promise<readonly PreviewPort[]> {
    const rows = await stored('read the published ports', () => this.#db.selectFrom('preview_ports').selectAll().where('sandbox_id', '=', sandboxId).orderBy('port').execute());
    return rows.map(fromRow);
  }

  async find(sandboxId: SandboxId, port: number): Promise<PreviewPort | null> {
    const row = await stored('read a published port', () =>
      this.#db.selectFrom('preview_ports').selectAll().where('sandbox_id', '=', sandboxId).where('port', '=', port).executeTakeFirst(),
    );
    return row === undefined ? null : fromRow(row);
  }

  async publish(sandboxId: SandboxId, port: number, access: PreviewPort['access'], otherwise: PreviewPort['access'] | null): Promise<PreviewPort> {
    const row = await stored('publish a port', () =>
      this.#db
        .insertInto('preview_ports')
        .values({ sandbox_id: sandboxId, port, access, token_version: 1 })
        .onConflict((conflict) => conflict.columns(['sandbox_id', 'port']).doUpdateSet(otherwise === null ? { token_version: sql`token_version` } : { access: otherwise }))
        .returningAll()
        .executeTakeFirstOrThrow(),
    );
    return fromRow(row);
  }

  async unpublish(sandboxId: SandboxId, port: number): Promise<void> {
    await stored('unpublish a port', () => this.#db.deleteFrom('preview_ports').where('sandbox_id', '=', sandboxId).where('port', '=', port).execute());
  }

  async rotate(sandboxId: SandboxId, port: number): Promise<PreviewPort | null> {
    const row = await stored('rotate the tokens of a port', () =>
      this.#db
        .updateTable('preview_ports')
        .set({ token_version: sql`token_version + 1` })
        .where('sandbox_id', '=', sandboxId)
        .where('port', '=', port)
        .returningAll()
        .executeTakeFirst(),
    );
    return row === undefined ? null : fromRow(row);
  }
}

function fromRow(row: Selectable<PreviewPortRow>): PreviewPort {
  return Object.freeze({ port: row.port, access: row.access as PreviewPort['access'], tokenVersion: row.token_version });
}
