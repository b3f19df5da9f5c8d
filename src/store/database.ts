import { chmodSync, closeSync, existsSync, fsyncSync, openSync } from 'node:fs';
import Database from 'better-sqlite3';
import { Kysely, SqliteDialect, sql } from 'kysely';
import { PaddockError } from '../core/errors.ts';
import { migrations as allMigrations, type Migration } from './migrations/index.ts';
import type { Schema } from './schema.ts';
import { syncDirectory } from './sealer.ts';

/**
 * Opens the database file, making it if there is none, and brings its schema up to date. Before an existing database is
 * changed it is copied to `<file>.before-v<version>`. A database of a newer Paddock is refused untouched.
 */
export async function openDatabase(file: string, migrations: readonly Migration[] = allMigrations): Promise<Kysely<Schema>> {
  const raw = openPrivate(file);
  try {
    raw.pragma('busy_timeout = 5000');
    raw.pragma('journal_mode = WAL');
    raw.pragma('synchronous = FULL');
    raw.pragma('foreign_keys = ON');
    const db = new Kysely<Schema>({ dialect: new SqliteDialect({ database: withCachedStatements(raw) }) });
    await migrate(db, file, migrations);
    return db;
  } catch (error) {
    raw.close();
    throw error instanceof PaddockError ? error : cannotOpen(file, error);
  }
}

/** A new file is readable by its owner only; SQLite gives its companions (`-wal`, `-shm`) the same mode. */
function openPrivate(file: string): Database.Database {
  try {
    if (!existsSync(file)) closeSync(openSync(file, 'wx', 0o600));
    return new Database(file);
  } catch (error) {
    throw cannotOpen(file, error);
  }
}

function cannotOpen(file: string, error: unknown): PaddockError {
  return new PaddockError('internal', `the database ${file} cannot be opened: ${error instanceof Error ? error.message : String(error)}`, {}, { cause: error });
}

async function migrate(db: Kysely<Schema>, file: string, migrations: readonly Migration[]): Promise<void> {
  await db.schema
    .createTable('schema_version')
    .ifNotExists()
    .addColumn('version', 'integer', (c) => c.primaryKey())
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('applied_at', 'bigint', (c) => c.notNull())
    .execute();
  const row = await db.selectFrom('schema_version').select((e) => e.fn.max('version').as('version')).executeTakeFirst();
  const current = row?.version ?? 0;
  const newest = migrations.at(-1)?.version ?? 0;
  if (current > newest) {
    const copy = `${file}.before-v${current}`;
    throw new PaddockError(
      'internal',
      `the database ${file} has schema version ${current}, made by a newer Paddock; this one knows up to ${newest}. Start the newer Paddock${existsSync(copy) ? `, or put back the copy ${copy}` : ''}`,
    );
  }
  const pending = migrations.filter((migration) => migration.version > current);
  if (pending.length === 0) return;
  if (current > 0) await copyBeside(db, file, newest);
  for (const migration of pending) {
    await db.transaction().execute(async (step) => {
      await migration.up(step);
      await step.insertInto('schema_version').values({ version: migration.version, name: migration.name, applied_at: Date.now() }).execute();
    });
  }
}

async function copyBeside(db: Kysely<Schema>, file: string, version: number): Promise<void> {
  let copy = `${file}.before-v${version}`;
  // A copy that is there is from an attempt before; it may be the only good one.
  for (let n = 2; existsSync(copy); n++) copy = `${file}.before-v${version}.${n}`;
  await sql`vacuum into ${copy}`.execute(db);
  chmodSync(copy, 0o600);
  const fd = openSync(copy, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  syncDirectory(copy);
}

/** Kysely compiles a query to the same text each time; preparing it once saves a third of a small query. */
function withCachedStatements(raw: Database.Database): { close(): void; prepare(text: string): Database.Statement<unknown[]> } {
  const statements = new Map<string, Database.Statement<unknown[]>>();
  return {
    close: () => {
      raw.close();
    },
    prepare: (text) => {
      let statement = statements.get(text);
      if (statement === undefined) {
        if (statements.size >= 256) statements.clear();
        statement = raw.prepare<unknown[]>(text);
        statements.set(text, statement);
      }
      return statement;
    },
  };
}
