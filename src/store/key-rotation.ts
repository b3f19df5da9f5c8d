import { sql, type Kysely, type Transaction } from 'kysely';
import { PaddockError } from '../core/errors.ts';
import { keyOf } from './authorities.ts';
import { openDatabase } from './database.ts';
import { stored } from './fault.ts';
import { answerOf } from './idempotency.ts';
import { envsOf as sandboxEnvs } from './sandboxes.ts';
import type { IdempotencyKeyRow, SandboxRow, Schema, SnapshotRow, TemplateArtefactRow, TemplateRow } from './schema.ts';
import { loadSealer, makeNextKey, type Sealer } from './sealer.ts';
import { standInOf } from './secret-bindings.ts';
import { valueOf } from './secrets.ts';
import { envsOf as snapshotEnvs } from './snapshots.ts';
import { openSealer, type StoreFiles } from './store.ts';
import { specOf, surroundingsOf } from './templates.ts';

export interface KeyRotation {
  /** Public names of the keys. */
  readonly before: string;
  readonly after: string;
  readonly sealed: number;
  /** Places of values that did not open before, and do not now. */
  readonly damaged: readonly string[];
}

/**
 * Seals everything anew with a new master key. Nobody else may have the database open. The new key is on disk before anything is sealed with
 * it, the rows change in one transaction, and the key takes the place of the old one last: after a crash at any moment one of the two opens
 * everything, and the next start finds out which. The old key stays as `<file>.<its name>`, for copies of the database from before.
 */
export async function rotateMasterKey(files: StoreFiles): Promise<KeyRotation> {
  const db = await openDatabase(files.database);
  try {
    const old = await openSealer(db, files.masterKey);
    const next = makeNextKey(files.masterKey);
    const damaged: string[] = [];
    const sealed = await stored('seal the database anew', () => db.transaction().execute((work) => sealAll(work, old, next, damaged)));
    loadSealer(files.masterKey, next.keyId);
    await compact(db);
    return { before: old.keyId, after: next.keyId, sealed, damaged };
  } finally {
    await db.destroy();
  }
}

type Row = Readonly<Record<string, string | null>>;

/** Every column that is sealed, and the place of its value in a row. */
export const sealedColumns: readonly { readonly table: keyof Schema; readonly column: string; readonly place: (row: never) => string }[] = [
  { table: 'sandboxes', column: 'envs_sealed', place: ({ id }: SandboxRow) => sandboxEnvs(id) },
  { table: 'snapshots', column: 'envs_sealed', place: ({ id }: SnapshotRow) => snapshotEnvs(id) },
  { table: 'secrets', column: 'value_sealed', place: valueOf },
  { table: 'secret_bindings', column: 'stand_in_sealed', place: standInOf },
  { table: 'authorities', column: 'key_sealed', place: keyOf },
  { table: 'templates', column: 'spec_sealed', place: ({ id }: TemplateRow) => specOf(id) },
  { table: 'template_artefacts', column: 'surroundings_sealed', place: ({ id }: TemplateArtefactRow) => surroundingsOf(id) },
  { table: 'idempotency_keys', column: 'answer_sealed', place: ({ id }: IdempotencyKeyRow) => answerOf(id) },
];

async function sealAll(work: Transaction<Schema>, old: Sealer, next: Sealer, damaged: string[]): Promise<number> {
  let sealed = 0;
  for (const { table, column, place } of sealedColumns) {
    const rows = await sql<Row>`select * from ${sql.table(table)} where ${sql.ref(column)} is not null`.execute(work);
    for (const row of rows.rows) {
      const where = place(row as never);
      try {
        const anew = next.seal(where, old.open(where, row[column]!));
        await sql`update ${sql.table(table)} set ${sql.ref(column)} = ${anew} where id = ${row['id']}`.execute(work);
        sealed++;
      } catch (error) {
        if (!(error instanceof PaddockError)) throw error;
        damaged.push(where);
      }
    }
  }
  await work.updateTable('store_facts').set({ value: next.keyId }).where('name', '=', 'master_key_id').execute();
  const root = old.sealRootWith(next);
  await work.insertInto('store_facts').values({ name: 'derivation_root', value: root }).onConflict((conflict) => conflict.column('name').doUpdateSet({ value: root })).execute();
  return sealed;
}

/** What was sealed with the old key leaves the file, too, not only its rows. */
async function compact(db: Kysely<Schema>): Promise<void> {
  await stored('compact the database', () => sql`vacuum`.execute(db));
}
