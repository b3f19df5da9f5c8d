import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { newSandboxId, type SandboxId, type TeamId } from '../core/ids.ts';
import type { ConnectionEvent } from '../core/network/egress.ts';
import type { ConnectionQuery, LoggedConnection } from '../core/store.ts';
import { openDatabase } from './database.ts';
import { SqlNetworkEvents } from './network-events.ts';

const teamId = 'team' as TeamId;
const sandboxId = newSandboxId();

function entry(changes: Partial<ConnectionEvent> = {}): ConnectionEvent & { teamId: TeamId } {
  return { teamId, sandboxId, at: 1000, host: null, address: null, port: 53, protocol: 'dns', verdict: 'blocked', matchRule: 'implicit-deny', rule: null, reason: 'no', bytesSent: 0, bytesReceived: 0, durationMs: 0.4, count: 7, ...changes };
}

async function log(bounds?: { keptPerSandbox: number }): Promise<{ events: SqlNetworkEvents } & AsyncDisposable> {
  const directory = mkdtempSync(join(tmpdir(), 'paddock-network-log-'));
  const db = await openDatabase(join(directory, 'paddock.db'));
  return {
    events: new SqlNetworkEvents(db, bounds),
    async [Symbol.asyncDispose]() {
      await db.destroy();
      rmSync(directory, { recursive: true });
    },
  };
}

async function all(events: SqlNetworkEvents, id: SandboxId = sandboxId): Promise<readonly LoggedConnection[]> {
  return (await events.list(teamId, id, { limit: 100_000 })).items;
}

describe('the network log', () => {
  it('gives back what it was given, names cut to the length that names have', async () => {
    await using place = await log();
    await place.events.append([entry({ host: 'a'.repeat(300) })]);
    const { seq, ...event } = (await all(place.events))[0]!;
    const { teamId: _, ...given } = entry({ host: 'a'.repeat(255), durationMs: 0 });
    assert.equal(seq, 1);
    assert.deepEqual(event, given);
  });

  it('pages hold every entry once, whatever the times', async () => {
    await using place = await log();
    const times = fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(times, fc.integer({ min: 1, max: 7 }), async (at, limit) => {
        const id = newSandboxId();
        await place.events.append(at.map((each) => entry({ sandboxId: id, at: each })));
        const seen: LoggedConnection[] = [];
        for (let query: ConnectionQuery = { limit }; ; ) {
          const page = await place.events.list(teamId, id, query);
          seen.push(...page.items);
          if (!page.more) break;
          query = { limit, before: page.items.at(-1)! };
        }
        assert.deepEqual(seen.map((each) => each.at), at.toSorted((a, b) => b - a));
        assert.equal(new Set(seen.map((each) => each.seq)).size, at.length);
      }),
      { numRuns: 40 },
    );
  });

  it('is filtered by team, time and verdict', async () => {
    await using place = await log();
    await place.events.append([1, 2, 3, 4].map((at) => entry({ at, verdict: at % 2 === 0 ? 'allowed' : 'failed' })));
    const times = async (query: Partial<ConnectionQuery>, team = teamId): Promise<number[]> => (await place.events.list(team, sandboxId, { limit: 10, ...query })).items.map((each) => each.at);
    assert.deepEqual(await times({ since: 2, before: { at: 4 } }), [3, 2]);
    assert.deepEqual(await times({ verdict: 'allowed' }), [4, 2]);
    assert.deepEqual(await times({}, 'other' as TeamId), []);
  });

  it('keeps about the newest of each sandbox, and of the others all', async () => {
    await using place = await log({ keptPerSandbox: 50 });
    const other = newSandboxId();
    await place.events.append([entry({ sandboxId: other })]);
    for (let i = 0; i < 6; i++) await place.events.append(Array.from({ length: 500 }, (_, n) => entry({ at: i * 500 + n })));
    const kept = await all(place.events);
    assert.ok(kept.length >= 50 && kept.length <= 1050, String(kept.length));
    assert.equal(kept[0]?.at, 2999);
    assert.equal(kept.at(-1)?.at, 3000 - kept.length);
    assert.equal((await all(place.events, other)).length, 1);
  });

  it('forgets what is old, and the oldest beyond the number of all', async () => {
    await using place = await log();
    await place.events.append(Array.from({ length: 3000 }, (_, at) => entry({ at })));
    assert.equal(await place.events.purge(1000, 1_000_000), 1000);
    assert.equal(await place.events.purge(0, 100), 1900);
    assert.deepEqual((await all(place.events)).map((each) => each.at).slice(-1), [2900]);
  });

  it('a flood is written with others in between', async () => {
    await using place = await log();
    let turns = 0;
    const ticking = setInterval(() => turns++, 1);
    await place.events.append(Array.from({ length: 20_000 }, (_, at) => entry({ at })));
    clearInterval(ticking);
    assert.ok(turns > 20, `others had ${turns} turns`);
    assert.ok((await all(place.events)).length <= 11_000);
  });
});
