import assert from 'node:assert/strict';
import { hkdfSync } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import Database from 'better-sqlite3';
import { newAuthorityId, newSandboxId, newSecretId, type TeamId } from '../core/ids.ts';
import type { Binding, Secret } from '../core/secrets/secret.ts';
import { rotateMasterKey, sealedColumns } from './key-rotation.ts';
import type { KeyedCreate } from '../core/idempotency.ts';
import { openStore, type SqlStore, type StoreFiles } from './store.ts';

interface Place extends AsyncDisposable {
  readonly files: StoreFiles;
  readonly secret: Secret;
  readonly binding: Binding;
  readonly authorityId: ReturnType<typeof newAuthorityId>;
}

/** A database with one of everything that is sealed. */
async function place(): Promise<Place> {
  const directory = mkdtempSync(join(tmpdir(), 'paddock-rotation-'));
  const files = { database: join(directory, 'paddock.db'), masterKey: join(directory, 'master.key') };
  const store = await openStore(files);
  const teamId = await store.keys.defaultTeam();
  const secret: Secret = { id: newSecretId(), teamId, environment: 'prod', name: 'KEY', provider: null, rules: [], createdAt: 1, updatedAt: 1, rotatedAt: null, rotationIntervalDays: null, lastUsedAt: null, deletedAt: null };
  await store.secrets.insert(secret, 'the real value');
  const binding: Binding = { id: crypto.randomUUID(), teamId, sandboxId: newSandboxId(), secretId: secret.id, variable: 'V', standIn: 'ssrv_proxy_x', when: 'stand-in', inherited: false, createdAt: 1, detachedAt: null };
  await store.secretBindings.insert(binding);
  const authorityId = newAuthorityId();
  await store.authorities.insert({ id: authorityId, certificate: 'c', privateKey: 'the private key', createdAt: 1 });
  const create = attempt(teamId);
  await store.idempotency.claim(create, 0);
  await store.idempotency.finish(create, 'the answer');
  await store.close();
  return { files, secret, binding, authorityId, [Symbol.asyncDispose]: async () => rmSync(directory, { recursive: true }) };
}

function attempt(teamId: Secret['teamId']): KeyedCreate {
  return { teamId, keyHash: 'k', bodyHash: 'b', run: 'r', sandboxId: null, answer: null, createdAt: 1 };
}

async function assertWhole(it: Place, derived: string): Promise<void> {
  const store = await openStore(it.files);
  assert.equal((await store.secrets.open(it.secret.teamId, [it.secret.id])).get(it.secret.id)?.value, 'the real value');
  assert.deepEqual((await store.secretBindings.ofSandbox(it.binding.sandboxId)).bindings, [it.binding]);
  assert.equal((await store.authorities.find(it.authorityId))?.privateKey, 'the private key');
  assert.equal((await store.idempotency.claim(attempt(it.secret.teamId), 0))?.answer, 'the answer');
  assert.equal(tokenKey(store), derived);
  await store.close();
}

const tokenKey = (store: SqlStore): string => store.deriveKey('sandbox-tokens').toString('hex');

describe('rotating the master key', () => {
  it('seals everything anew, twice, keeps what tokens are derived from, and leaves the old key beside', async () => {
    await using it = await place();
    const first = readFileSync(it.files.masterKey, 'utf8').trim();
    const derived = Buffer.from(hkdfSync('sha256', Buffer.from(first, 'hex'), 'paddock', 'sandbox-tokens', 32)).toString('hex');
    await assertWhole(it, derived);
    for (let round = 0; round < 2; round++) {
      const before = readFileSync(it.files.masterKey, 'utf8');
      const { sealed, damaged, before: name, after } = await rotateMasterKey(it.files);
      assert.deepEqual([sealed, damaged], [4, []]);
      assert.notEqual(name, after);
      assert.notEqual(readFileSync(it.files.masterKey, 'utf8'), before);
      assert.equal(statSync(it.files.masterKey).mode & 0o777, 0o600);
      assert.equal(readFileSync(`${it.files.masterKey}.${name}`, 'utf8'), before);
      assert.equal(existsSync(`${it.files.masterKey}.next`), false);
      await assertWhole(it, derived);
      // The old one opens nothing any more.
      renameSync(it.files.masterKey, `${it.files.masterKey}.kept`);
      writeFileSync(it.files.masterKey, before, { mode: 0o600 });
      await assert.rejects(openStore(it.files), /the database was sealed with/);
      renameSync(`${it.files.masterKey}.kept`, it.files.masterKey);
      assert.ok(!readFileSync(it.files.database).includes(`v1.${name}.`), 'something sealed with the old key is left in the file');
    }
  });

  it('cut off at any moment, leaves a key that opens everything', async () => {
    await using it = await place();
    const store = await openStore(it.files);
    const derived = tokenKey(store);
    await store.close();
    // Before anything was sealed.
    writeFileSync(`${it.files.masterKey}.next`, `${'ab'.repeat(32)}\n`, { mode: 0o600 });
    await assertWhole(it, derived);
    const old = readFileSync(it.files.masterKey, 'utf8');
    await rotateMasterKey(it.files); // what was left over is no obstacle
    await assertWhole(it, derived);
    // After it was sealed, before the keys changed places.
    renameSync(it.files.masterKey, `${it.files.masterKey}.next`);
    writeFileSync(it.files.masterKey, old, { mode: 0o600 });
    await assertWhole(it, derived);
    assert.equal(existsSync(`${it.files.masterKey}.next`), false);
    await assertWhole(it, derived);
  });

  it('forgets no column', async () => {
    await using it = await place();
    const raw = new Database(it.files.database);
    const tables = (raw.prepare("select name from sqlite_master where type = 'table'").all() as { name: string }[]).map(({ name }) => name);
    const sealed = tables.flatMap((table) => (raw.pragma(`table_info(${table})`) as { name: string }[]).filter(({ name }) => name.endsWith('_sealed')).map(({ name }) => `${table}.${name}`));
    raw.close();
    assert.deepEqual(sealed.toSorted(), sealedColumns.map(({ table, column }) => `${table}.${column}`).toSorted());
  });

  it('names what was damaged before, and leaves it shut', async () => {
    await using it = await place();
    const raw = new Database(it.files.database);
    raw.prepare("update secrets set name = 'OTHER'").run();
    raw.close();
    const { damaged } = await rotateMasterKey(it.files);
    assert.equal(damaged.length, 1);
    assert.match(damaged[0]!, /^secrets\/.*\/value\//);
    const store = await openStore(it.files);
    const opened = (await store.secrets.open(it.secret.teamId, [it.secret.id])).get(it.secret.id);
    assert.equal(opened?.value, null);
    assert.match(opened?.fault ?? '', /needs master key/);
    await store.close();
  });

  it('a listing of ten thousand secrets is bounded and quick', async () => {
    await using it = await place();
    const raw = new Database(it.files.database);
    raw.exec(`with recursive n(i) as (select 1 union all select i + 1 from n where i < 10000)
      insert into secrets select 'id-' || i, team_id, environment, 'N' || i, provider, rules, value_sealed, created_at + i, updated_at, rotated_at, rotation_interval_days, last_used_at, deleted_at from n, secrets where name = 'KEY'`);
    raw.close();
    const store = await openStore(it.files);
    const page = await store.secrets.list(it.secret.teamId as TeamId, { limit: 100, offset: 50 });
    assert.deepEqual([page.items.length, page.total, page.items[0]?.name], [100, 10_001, 'N9950']);
    await store.close();
  });
});
