import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import Database from 'better-sqlite3';
import { openDatabase } from './database.ts';
import { migrations, type Migration } from './migrations/index.ts';
import { openStore } from './store.ts';

function directory(): Disposable & { readonly file: string; readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), 'paddock-database-'));
  return { path, file: join(path, 'paddock.db'), [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

/** The newest version there is, and one that comes after it. */
const newest = migrations.at(-1)?.version ?? 0;
const next = newest + 1;

const change: Migration = {
  version: next,
  name: 'a column more',
  async up(db) {
    await db.schema.alterTable('teams').addColumn('colour', 'text').execute();
  },
};
const failing: Migration = {
  version: next,
  name: 'half a change',
  async up(db) {
    await db.schema.alterTable('teams').addColumn('colour', 'text').execute();
    throw new Error('the change failed');
  },
};

function columns(file: string): string[] {
  const raw = new Database(file, { readonly: true });
  try {
    return (raw.pragma('table_info(teams)') as { name: string }[]).map((column) => column.name);
  } finally {
    raw.close();
  }
}

describe('opening the database', () => {
  it('writes ahead, into files that only their owner reads', async () => {
    using place = directory();
    const db = await openDatabase(place.file);
    const raw = new Database(place.file);
    assert.equal(raw.pragma('journal_mode', { simple: true }), 'wal');
    raw.close();
    for (const suffix of ['', '-wal']) assert.equal(statSync(place.file + suffix).mode & 0o777, 0o600);
    await db.destroy();
  });

  it('says so when its directory is missing', async () => {
    using place = directory();
    await assert.rejects(openDatabase(join(place.path, 'none', 'paddock.db')), { code: 'internal', message: /cannot be opened: ENOENT/ });
  });

  it('copies an existing database beside itself before it is changed, and a new one not', async () => {
    using place = directory();
    await (await openDatabase(place.file)).destroy();
    assert.equal(existsSync(`${place.file}.before-v${newest}`), false);
    await (await openDatabase(place.file, [...migrations, change])).destroy();
    assert.deepEqual(columns(place.file), ['id', 'name', 'created_at', 'colour']);
    assert.deepEqual(columns(`${place.file}.before-v${next}`), ['id', 'name', 'created_at']);
    // The copy is a database that the old version opens.
    await (await openDatabase(`${place.file}.before-v${next}`)).destroy();
  });

  it('changes nothing twice', async () => {
    using place = directory();
    await (await openDatabase(place.file, [...migrations, change])).destroy();
    await (await openDatabase(place.file, [...migrations, change])).destroy();
    assert.equal(existsSync(`${place.file}.before-v${next}`), false);
  });

  it('leaves a database as it was when a migration fails, and keeps every copy', async () => {
    using place = directory();
    await (await openDatabase(place.file)).destroy();
    for (const copy of [`before-v${next}`, `before-v${next}.2`]) {
      await assert.rejects(openDatabase(place.file, [...migrations, failing]), { code: 'internal', message: `the database ${place.file} cannot be opened: the change failed` });
      assert.ok(existsSync(`${place.file}.${copy}`));
    }
    assert.deepEqual(columns(place.file), ['id', 'name', 'created_at']);
    await (await openDatabase(place.file)).destroy();
  });

  it('refuses one of a newer version with a sentence, and leaves it alone', async () => {
    using place = directory();
    await (await openDatabase(place.file, [...migrations, change])).destroy();
    await assert.rejects(openDatabase(place.file), {
      code: 'internal',
      message: `the database ${place.file} has schema version ${next}, made by a newer Paddock; this one knows up to ${newest}. Start the newer Paddock`,
    });
    writeFileSync(`${place.file}.before-v${next}`, '');
    await assert.rejects(openDatabase(place.file), { message: new RegExp(`Start the newer Paddock, or put back the copy ${place.file}.before-v${next}$`) });
  });

  it('says so when the file is no database', async () => {
    using place = directory();
    writeFileSync(place.file, 'this is not a database at all, it is a text of some length');
    await assert.rejects(openDatabase(place.file), { code: 'internal', message: /cannot be opened: file is not a database/ });
  });
});

const writer = `
import { openStore } from ${JSON.stringify(new URL('./store.ts', import.meta.url).href)};
const store = await openStore({ database: process.argv[2] + '/paddock.db', masterKey: process.argv[2] + '/master.key' });
const teamId = await store.keys.defaultTeam();
for (let i = 0; ; i++) {
  await store.keys.insert({ id: 'key-' + i, teamId, name: 'n', createdAt: i, revokedAt: null }, 'hash-' + i);
  process.stdout.write(i + '\\n');
}
`;

describe('a server that is killed', () => {
  it('loses nothing that it had been told is stored', async () => {
    using place = directory();
    const script = join(place.path, 'writer.mjs');
    writeFileSync(script, writer);
    for (let round = 0; round < 2; round++) {
      const target = join(place.path, `round-${round}`);
      mkdirSync(target);
      const child = spawn(process.execPath, [script, target], { stdio: ['ignore', 'pipe', 'inherit'] });
      let last = -1;
      for await (const line of createInterface({ input: child.stdout })) {
        last = Number(line);
        if (last === 50 + round * 37) child.kill('SIGKILL');
      }
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      const store = await openStore({ database: join(target, 'paddock.db'), masterKey: join(target, 'master.key') });
      const kept = await store.keys.list(await store.keys.defaultTeam());
      assert.ok(last >= 50 && kept.length > last, `${kept.length} kept, ${last + 1} confirmed`);
      for (let i = 0; i <= last; i++) assert.equal(kept[i]?.id, `key-${i}`);
      await store.close();
    }
  });
});
