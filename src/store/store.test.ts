import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, chmodSync, readFileSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import Database from 'better-sqlite3';
import fc from 'fast-check';
import { newSandboxId, newShortId, type SandboxId, type TeamId } from '../core/ids.ts';
import { openPolicy } from '../core/network/rules.ts';
import type { Sandbox, SandboxState } from '../core/sandbox.ts';
import type { SandboxQuery } from '../core/store.ts';
import { openDatabase } from './database.ts';
import { migrations } from './migrations/index.ts';
import { openStore, type SqlStore } from './store.ts';

interface Place extends AsyncDisposable {
  readonly files: { readonly database: string; readonly masterKey: string };
  readonly store: SqlStore;
  readonly teamId: TeamId;
}

async function place(): Promise<Place> {
  const directory = mkdtempSync(join(tmpdir(), 'paddock-store-'));
  const files = { database: join(directory, 'paddock.db'), masterKey: join(directory, 'master.key') };
  const store = await openStore(files);
  return {
    files,
    store,
    teamId: await store.keys.defaultTeam(),
    async [Symbol.asyncDispose]() {
      await store.close();
      rmSync(directory, { recursive: true });
    },
  };
}

function sandbox(teamId: TeamId, changes: Partial<Sandbox> = {}): Sandbox {
  return {
    id: newSandboxId(),
    shortId: newShortId(),
    teamId,
    wire: 'declaw',
  name: '',
    template: { id: 'tpl-base', name: 'base', digest: 'd' },
    limits: { vcpus: 1, memoryMb: 512, diskMb: 1024, pids: 256 },
    state: 'creating',
    defaultUser: 'user',
    metadata: {},
    envs: { API_KEY: 'very secret' },
    lifecycle: { onTimeout: 'kill', autoResume: false, maxLifetimeSeconds: null, autoDeleteSeconds: null },
    declared: { network: { deny_out: ['0.0.0.0/0'] } },
    policy: { allowPublicTraffic: true, audit: true, network: openPolicy, maskRequestHost: null, previews: 'private' },
    timeoutSeconds: 300,
    createdAt: Date.now(),
    startedAt: null,
    endAt: null,
    periodStartedAt: null,
    pausedAt: null,
    pauseCause: null,
    autoDeleteAt: null,
    snapshotId: null,
    sourceSnapshotId: null,
    authorityId: null,
    generation: 1,
    guest: null,
    end: null,
    ...changes,
  };
}

const guest: Sandbox['guest'] = {
  runtime: 'gvisor', build: 'b', container: 'c', slot: 1, address: '10.0.0.2', agentPort: 49_983, agentProtocol: 1, pid: 1, pidStart: '1', bootId: 'x',
};
const all: SandboxQuery = { states: ['creating', 'running', 'killing', 'killed'], metadata: {}, limit: 1000 };

describe('a stored sandbox', () => {
  it('comes back as it went in, frozen, by either of its names', async () => {
    await using it = await place();
    const one = sandbox(it.teamId, { metadata: { b: '2', a: 'ü' } });
    await it.store.sandboxes.insert(one);
    const found = await it.store.sandboxes.find(it.teamId, { id: one.id });
    assert.deepEqual(found, one);
    assert.deepEqual(await it.store.sandboxes.find(it.teamId, { shortId: one.shortId }), one);
    assert.ok(Object.isFrozen(found) && Object.isFrozen(found.envs) && Object.isFrozen(found.declared.network));
  });

  it('is not found by another team', async () => {
    await using it = await place();
    const one = sandbox(it.teamId);
    await it.store.sandboxes.insert(one);
    assert.equal(await it.store.sandboxes.find('other' as TeamId, { id: one.id }), null);
    assert.equal((await it.store.sandboxes.find(null, { id: one.id }))?.id, one.id);
  });

  it('must have a short id of its own', async () => {
    await using it = await place();
    const one = sandbox(it.teamId);
    await it.store.sandboxes.insert(one);
    await assert.rejects(it.store.sandboxes.insert(sandbox(it.teamId, { shortId: one.shortId, metadata: { a: 'b' } })), { code: 'conflict' });
    assert.equal((await it.store.sandboxes.list(it.teamId, all)).total, 1);
  });

  it('cannot run without a guest, nor end without a reason', async () => {
    await using it = await place();
    const one = sandbox(it.teamId);
    await it.store.sandboxes.insert(one);
    await assert.rejects(it.store.sandboxes.transition(one.id, ['creating'], 'running', {}), { code: 'internal', message: /sandboxes_running_has_guest/ });
    await assert.rejects(it.store.sandboxes.transition(one.id, ['creating'], 'killing', {}), { code: 'internal', message: /sandboxes_end_has_reason/ });
  });

  it('leaves no environment value in the files of the database', async () => {
    await using it = await place();
    await it.store.sandboxes.insert(sandbox(it.teamId));
    for (const suffix of ['', '-wal']) assert.equal(readFileSync(it.files.database + suffix).includes('very secret'), false);
  });
});

describe('a transition', () => {
  it('is won by one of many who try', async () => {
    await using it = await place();
    const one = sandbox(it.teamId, { state: 'running', guest });
    await it.store.sandboxes.insert(one);
    const end = { at: 5, reason: 'killed', detail: '' } as const;
    const results = await Promise.all(Array.from({ length: 20 }, () => it.store.sandboxes.transition(one.id, ['running'], 'killing', { end })));
    assert.equal(results.filter((result) => result !== null).length, 1);
    assert.deepEqual(results.find((result) => result !== null), { ...one, state: 'killing', end });
  });

  it('holds to its guard', async () => {
    await using it = await place();
    const one = sandbox(it.teamId, { state: 'running', guest, endAt: 1000 });
    await it.store.sandboxes.insert(one);
    const end = { at: 5, reason: 'timeout', detail: '' } as const;
    assert.equal(await it.store.sandboxes.transition(one.id, ['running'], 'killing', { end }, { endAt: 2000 }), null);
    assert.equal(await it.store.sandboxes.transition(one.id, ['running'], 'killing', { end }, { endAt: null }), null);
    assert.equal((await it.store.sandboxes.transition(one.id, ['running'], 'killing', { end }, { endAt: 1000 }))?.state, 'killing');
  });

  it('changes what it is told to, and nothing else', async () => {
    await using it = await place();
    const one = sandbox(it.teamId);
    await it.store.sandboxes.insert(one);
    const running = await it.store.sandboxes.transition(one.id, ['creating'], 'running', { guest, startedAt: 7, endAt: 9 });
    assert.deepEqual(running, { ...one, state: 'running', guest, startedAt: 7, endAt: 9 });
    const endless = await it.store.sandboxes.transition(one.id, ['running'], 'running', { endAt: null, timeoutSeconds: 0 });
    assert.deepEqual(endless, { ...one, state: 'running', guest, startedAt: 7, endAt: null, timeoutSeconds: 0 });
  });
});

describe('a listing', () => {
  it('pages without skipping or repeating, whatever is inserted meanwhile', async () => {
    await using it = await place();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ at: fc.integer({ min: 0, max: 5 }), tag: fc.constantFrom('x', 'y') }), { maxLength: 25 }),
        fc.array(fc.integer({ min: 0, max: 8 }), { maxLength: 10 }),
        fc.integer({ min: 1, max: 4 }),
        fc.constantFrom<Record<string, string>>({}, { tag: 'x' }),
        async (rows, later, limit, metadata) => {
          const team = newSandboxId() as string as TeamId;
          const raw = new Database(it.files.database);
          raw.prepare('insert into teams (id, name, created_at) values (?, ?, 0)').run(team, team);
          raw.close();
          const expected: SandboxId[] = [];
          for (const row of rows) {
            const one = sandbox(team, { createdAt: row.at, metadata: { tag: row.tag } });
            await it.store.sandboxes.insert(one);
            if (metadata['tag'] === undefined || metadata['tag'] === row.tag) expected.push(one.id);
          }
          const seen: SandboxId[] = [];
          const inserted = new Set<SandboxId>();
          let after: SandboxQuery['after'];
          for (;;) {
            const page = await it.store.sandboxes.list(team, { ...all, metadata, limit, ...(after === undefined ? {} : { after }) });
            assert.ok(page.items.length <= limit);
            seen.push(...page.items.map((item) => item.id));
            const last = page.items.at(-1);
            if (!page.more || last === undefined) break;
            after = { createdAt: last.createdAt, id: last.id };
            const at = later.shift();
            if (at !== undefined) {
              const one = sandbox(team, { createdAt: at, metadata: { tag: 'x' } });
              await it.store.sandboxes.insert(one);
              inserted.add(one.id);
            }
          }
          assert.equal(new Set(seen).size, seen.length);
          assert.deepEqual(seen.filter((id) => !inserted.has(id)).sort(), expected.sort());
        },
      ),
      { numRuns: 40 },
    );
  });

  it('filters by metadata and state, newest first, and counts all that match', async () => {
    await using it = await place();
    for (const [i, [state, owner]] of ([['running', 'me'], ['killed', 'me'], ['running', 'you'], ['running', 'me']] as [SandboxState, string][]).entries()) {
      const end = state === 'killed' ? ({ at: 1, reason: 'killed', detail: '' } as const) : null;
      await it.store.sandboxes.insert(sandbox(it.teamId, { state, end, guest: state === 'killed' ? null : guest, createdAt: i, metadata: { owner, n: String(i) } }));
    }
    const list = async (query: Partial<SandboxQuery>): Promise<[number[], number, boolean]> => {
      const { items, total, more } = await it.store.sandboxes.list(it.teamId, { ...all, ...query });
      return [items.map((item) => item.createdAt), total, more];
    };
    assert.deepEqual(await list({ states: ['running'], metadata: { owner: 'me' } }), [[3, 0], 2, false]);
    assert.deepEqual(await list({ metadata: { owner: 'me', n: '1' } }), [[1], 1, false]);
    assert.deepEqual(await list({ limit: 2 }), [[3, 2], 4, true]);
    assert.deepEqual(await list({ limit: 2, offset: 2 }), [[1, 0], 4, false]);
    assert.deepEqual(await list({ limit: 2, offset: 9 }), [[], 4, false]);
    assert.deepEqual(await list({ states: [] }), [[], 0, false]);
    assert.deepEqual(await list({ metadata: { "owner' or 1=1 --": 'me' } }), [[], 0, false]);
  });
});

describe('among very many tombstones', () => {
  it('the living are found and the old ones purged without reading the others', async () => {
    await using it = await place();
    const raw = new Database(it.files.database);
    const plan = (text: string): string => (raw.prepare(`explain query plan ${text}`).all(Array.from(text.matchAll(/\?/g), () => 0)) as { detail: string }[]).map((step) => step.detail).join('; ');
    assert.match(plan("select * from sandboxes where state in (?, ?) and state <> 'killed' order by created_at, id"), /USING INDEX sandboxes_live/);
    assert.match(plan("select * from sandboxes where team_id = ? and state in (?, ?) and state <> 'killed' order by created_at desc, id desc limit 9"), /sandboxes_live \(team_id=\?\)$/);
    assert.match(plan("select count(*) from sandboxes where team_id = ? and state in (?, ?) and state <> 'killed'"), /sandboxes_live \(team_id=\?\)/);
    assert.match(plan("select id from sandboxes where state = 'killed' and ended_at < ? limit 500"), /INDEX sandboxes_tombstones/);
    assert.match(plan('delete from events where seq in (select seq from events where at < ? or seq <= ? limit 1000)'), /MULTI-INDEX OR/);
    raw.close();
  });

  it('a purge takes all that are old', async () => {
    await using it = await place();
    const raw = new Database(it.files.database);
    const one = sandbox(it.teamId, { state: 'killed', end: { at: 1, reason: 'killed', detail: '' } });
    await it.store.sandboxes.insert(one);
    raw.exec(`with recursive n(i) as (select 1 union all select i + 1 from n where i < 1200)
      insert into sandboxes select 'id-' || i, 'short-' || i, team_id, wire, state, template_id, template_name, template_digest, limits, default_user, metadata,
        envs_sealed, lifecycle, declared, policy, timeout_seconds, created_at, started_at, end_at, generation, guest, ended_at, end_reason, end_detail,
        period_started_at, paused_at, auto_delete_at, pause_cause, snapshot_id, source_snapshot_id, name, template_runtime, authority_id
      from n, sandboxes where id = '${one.id}'`);
    raw.close();
    assert.equal(await it.store.sandboxes.purge(2), 1201);
  });
});

describe('a sandbox of an earlier version', () => {
  it('has what it had, and is moved by its deadline as any other', async () => {
    await using it = await place();
    const old = sandbox(it.teamId, { state: 'running', startedAt: 5, endAt: 9, guest });
    await it.store.sandboxes.insert(old);
    await it.store.close();
    // The same rows in a database as it was before sandboxes could be paused.
    const earlier = { ...it.files, database: `${it.files.database}.earlier` };
    await (await openDatabase(earlier.database, migrations.slice(0, 2))).destroy();
    const [now, then] = [new Database(it.files.database), new Database(earlier.database)];
    for (const table of ['store_facts', 'teams', 'sandboxes']) {
      const columns = (then.pragma(`table_info(${table})`) as { name: string }[]).map(({ name }) => name);
      for (const row of now.prepare(`select ${columns.join(', ')} from ${table}`).all()) {
        then.prepare(`insert into ${table} (${columns.join(', ')}) values (${columns.map((name) => `@${name}`).join(', ')})`).run(row);
      }
    }
    then.prepare('update sandboxes set lifecycle = ?').run('{"onTimeout":"kill","autoResume":false}');
    now.close();
    then.close();

    const store = await openStore(earlier);
    const found = await store.sandboxes.find(it.teamId, { id: old.id });
    assert.deepEqual(found?.lifecycle, { onTimeout: 'kill', autoResume: false, maxLifetimeSeconds: null, autoDeleteSeconds: null });
    assert.equal(found.periodStartedAt, 5);
    const moved = await store.sandboxes.transition(old.id, ['running'], 'killing', { end: { at: 9, reason: 'timeout', detail: '' } }, { endAt: found.endAt, lifecycle: found.lifecycle });
    assert.equal(moved?.state, 'killing');
    await store.close();
  });
});

describe('what is sealed', () => {
  it('does not open when a row was altered', async () => {
    await using it = await place();
    const one = sandbox(it.teamId);
    await it.store.sandboxes.insert(one);
    const raw = new Database(it.files.database);
    const { sealed } = raw.prepare('select envs_sealed as sealed from sandboxes').get() as { sealed: string };
    const flipped = sealed.slice(0, -3) + (sealed.at(-3) === 'A' ? 'B' : 'A') + sealed.slice(-2);
    raw.prepare('update sandboxes set envs_sealed = ?').run(flipped);
    raw.close();
    await assert.rejects(it.store.sandboxes.find(it.teamId, { id: one.id }), {
      code: 'internal',
      message: `the sealed value of sandboxes/${one.id}/envs does not open: the row was altered or belongs to another one`,
    });
  });

  it('does not open in another row', async () => {
    await using it = await place();
    const [one, two] = [sandbox(it.teamId), sandbox(it.teamId)];
    await it.store.sandboxes.insert(one);
    await it.store.sandboxes.insert(two);
    const raw = new Database(it.files.database);
    raw.prepare('update sandboxes set envs_sealed = (select envs_sealed from sandboxes where id = ?) where id = ?').run(one.id, two.id);
    raw.close();
    await assert.rejects(it.store.sandboxes.find(it.teamId, { id: two.id }), { code: 'internal', message: /belongs to another one$/ });
  });

  it('needs its key: the server does not start with another, or without one', async () => {
    await using it = await place();
    assert.equal(statSync(it.files.masterKey).mode & 0o777, 0o600);
    await it.store.sandboxes.insert(sandbox(it.teamId));
    await assert.rejects(openStore({ ...it.files, masterKey: `${it.files.masterKey}.lost` }), { code: 'internal', message: /is missing, and the database holds values sealed with it .* put it back from a backup$/ });
    const other = { database: `${it.files.database}.other`, masterKey: `${it.files.masterKey}.other` };
    await (await openStore(other)).close();
    await assert.rejects(openStore({ ...it.files, masterKey: other.masterKey }), { code: 'internal', message: /was sealed with/ });
  });

  it('is not opened with a key that others can read', async () => {
    await using it = await place();
    chmodSync(it.files.masterKey, 0o644);
    await assert.rejects(openStore(it.files), { code: 'internal', message: `the master key ${it.files.masterKey} can be read by others (mode 644); run: chmod 600 ${it.files.masterKey}` });
  });

  it('gives the same derived key after every start, and another for another purpose', async () => {
    await using it = await place();
    const again = await openStore(it.files);
    assert.deepEqual(again.deriveKey('tokens'), it.store.deriveKey('tokens'));
    assert.notDeepEqual(again.deriveKey('tokens'), again.deriveKey('cursors'));
    await again.close();
  });
});

describe('a purge', () => {
  it('takes tombstones that are old enough, with all that belongs to them', async () => {
    await using it = await place();
    const dead = (at: number): Sandbox => sandbox(it.teamId, { state: 'killed', end: { at, reason: 'timeout', detail: '' }, metadata: { a: 'b' } });
    const [old, young] = [dead(10), dead(20)];
    await it.store.sandboxes.insert(old);
    await it.store.sandboxes.insert(young);
    await it.store.processDeadlines.put({ teamId: it.teamId, sandboxId: old.id, processId: 'p1', at: 5 });
    assert.equal(await it.store.sandboxes.purge(20), 1);
    assert.equal(await it.store.sandboxes.find(it.teamId, { id: old.id }), null);
    assert.equal((await it.store.sandboxes.list(it.teamId, { ...all, metadata: { a: 'b' } })).total, 1);
    assert.deepEqual(await it.store.processDeadlines.all(), []);
  });

  it('takes events that are old, and the oldest above the bound', async () => {
    await using it = await place();
    const id = newSandboxId();
    const events = Array.from({ length: 1200 }, (_, at) => ({ at, teamId: it.teamId, sandboxId: id, category: 'command' as const, name: 'n', detail: { at } }));
    await it.store.events.append(events);
    assert.equal(await it.store.events.purge(100, 1000), 200);
    const left = await it.store.events.list(it.teamId, id, 2000);
    assert.deepEqual([left.length, left[0]?.at, left.at(-1)?.at], [1000, 200, 1199]);
    assert.deepEqual((await it.store.events.list(it.teamId, id, 2)).map((event) => event.at), [1198, 1199]);
  });
});

describe('an API key', () => {
  it('is found by its hash until it is revoked, and by its team only', async () => {
    await using it = await place();
    const key = { id: 'key-1', teamId: it.teamId, name: 'mine', createdAt: 1, revokedAt: null, scope: 'write' as const, expiresAt: 9, lastUsedAt: null };
    await it.store.keys.insert(key, 'aa');
    assert.deepEqual([await it.store.keys.invalid(['key-1', 'key-9'], 8), await it.store.keys.invalid(['key-1'], 9)], [[], ['key-1']]);
    assert.deepEqual(await it.store.keys.findByHash('aa'), { ...key, hash: 'aa' });
    assert.equal(await it.store.keys.findByHash('bb'), null);
    await assert.rejects(it.store.keys.insert({ ...key, id: 'key-2' }, 'aa'), { code: 'conflict' });
    assert.equal(await it.store.keys.revoke('other' as TeamId, 'key-1', 5), false);
    assert.equal(await it.store.keys.revoke(it.teamId, 'key-1', 5), true);
    assert.equal(await it.store.keys.revoke(it.teamId, 'key-1', 6), false);
    assert.deepEqual(await it.store.keys.list(it.teamId), [{ ...key, revokedAt: 5 }]);
  });

  it('belongs to one default team, however often that is asked for', async () => {
    await using it = await place();
    const teams = await Promise.all([1, 2, 3].map(() => it.store.keys.defaultTeam()));
    assert.deepEqual(new Set(teams), new Set([it.teamId]));
  });
});
