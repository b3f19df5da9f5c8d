import { sql, type Kysely, type Transaction } from 'kysely';
import { keyOf } from './authorities.ts';
import { openDatabase } from './database.ts';
import { stored } from './fault.ts';
import { envsOf as sandboxEnvs } from './sandboxes.ts';
import type { Schema } from './schema.ts';
import { loadSealer, makeNextKey, type Sealer } from './sealer.ts';
import { standInOf } from './secret-bindings.ts';
import { valueOf } from './secrets.ts';
import { envsOf as snapshotEnvs } from './snapshots.ts';
import { openSealer, type StoreFiles } from './store.ts';

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

async function sealAll(work: Transaction<Schema>, old: Sealer, next: Sealer, damaged: string[]): Promise<number> {
  let sealed = 0;
  const again = (place: string, text: string): string => {
    try {
      const anew = next.seal(place, old.open(place, text));
      sealed++;
      return anew;
    } catch {
      damaged.push(place);
      return text;
    }
  };
  for (const row of await work.selectFrom('sandboxes').select(['id', 'envs_sealed']).execute()) {
    await work.updateTable('sandboxes').set({ envs_sealed: again(sandboxEnvs(row.id), row.envs_sealed) }).where('id', '=', row.id).execute();
  }
  for (const row of await work.selectFrom('snapshots').select(['id', 'envs_sealed']).execute()) {
    await work.updateTable('snapshots').set({ envs_sealed: again(snapshotEnvs(row.id), row.envs_sealed) }).where('id', '=', row.id).execute();
  }
  for (const row of await work.selectFrom('secrets').selectAll().where('value_sealed', 'is not', null).execute()) {
    await work.updateTable('secrets').set({ value_sealed: again(valueOf(row), row.value_sealed!) }).where('id', '=', row.id).execute();
  }
  for (const row of await work.selectFrom('secret_bindings').selectAll().execute()) {
    await work.updateTable('secret_bindings').set({ stand_in_sealed: again(standInOf(row), row.stand_in_sealed) }).where('id', '=', row.id).execute();
  }
  for (const row of await work.selectFrom('authorities').selectAll().execute()) {
    await work.updateTable('authorities').set({ key_sealed: again(keyOf(row), row.key_sealed) }).where('id', '=', row.id).execute();
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
