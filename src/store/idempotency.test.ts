import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { KeyedCreate } from '../core/idempotency.ts';
import type { TeamId } from '../core/ids.ts';
import { openDatabase } from './database.ts';
import { SqlIdempotency } from './idempotency.ts';
import { SqlKeys } from './keys.ts';
import { loadSealer } from './sealer.ts';

async function opened(bounds?: { count?: number; bytes?: number }): Promise<{ keys: SqlIdempotency; teamId: TeamId } & AsyncDisposable> {
  const directory = mkdtempSync(join(tmpdir(), 'paddock-idempotency-'));
  const db = await openDatabase(join(directory, 'paddock.db'));
  return {
    keys: new SqlIdempotency(db, loadSealer(join(directory, 'master.key'), null), bounds),
    teamId: await new SqlKeys(db).defaultTeam(),
    async [Symbol.asyncDispose]() {
      await db.destroy();
      rmSync(directory, { recursive: true });
    },
  };
}

function attempt(teamId: TeamId, keyHash: string, createdAt: number): KeyedCreate {
  return { teamId, keyHash, bodyHash: 'b', run: 'r', sandboxId: null, answer: null, createdAt };
}

test('of one team the newest stay, by number and by bytes, and what runs is never forgotten', async () => {
  for (const [bounds, answer] of [[{ count: 20 }, 'x'], [{ bytes: 20_000 }, randomBytes(700).toString('hex')]] as const) {
    await using place = await opened(bounds);
    const { keys, teamId } = place;
    await keys.claim(attempt(teamId, 'running', 0), -1);
    for (let i = 1; i <= 100; i++) {
      await keys.claim(attempt(teamId, `k${i}`, i), -1);
      await keys.finish(attempt(teamId, `k${i}`, i), answer);
    }
    assert.equal((await keys.claim(attempt(teamId, 'k100', 200), -1))?.answer, answer);
    assert.equal((await keys.claim(attempt(teamId, 'running', 200), -1))?.createdAt, 0);
    assert.equal(await keys.claim(attempt(teamId, 'k1', 200), -1), null, 'the oldest is forgotten');
  }
});

test('one that was put in the place of a dead one cannot be taken by a second', async () => {
  await using place = await opened();
  const { keys, teamId } = place;
  const dead = attempt(teamId, 'k', 1);
  await keys.claim(dead, -1);
  assert.equal(await keys.reclaim(dead, { ...dead, run: 's' }), true);
  assert.equal(await keys.reclaim(dead, { ...dead, run: 't' }), false);
});
