import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from './clock.ts';
import { EventLog } from './events.ts';
import { newSandboxId, type TeamId } from './ids.ts';
import { openPolicy } from './network/rules.ts';
import type { EventStore, PaddockEvent } from './store.ts';

class MemoryEvents implements Pick<EventStore, 'append' | 'list' | 'purge'> {
  readonly batches: (readonly PaddockEvent[])[] = [];
  failing = false;
  slow = 0;

  async append(events: readonly PaddockEvent[]): Promise<void> {
    if (this.slow > 0) await sleep(this.slow);
    if (this.failing) throw new Error('the disk is full');
    this.batches.push(events);
  }
  async list(): Promise<readonly PaddockEvent[]> {
    return this.batches.flat();
  }
  async purge(): Promise<number> {
    return 0;
  }
  names(): string[] {
    return this.batches.flat().map((event) => event.name);
  }
}

const sandbox = (audit = true): Parameters<EventLog['ofSandbox']>[0] => ({ id: newSandboxId(), teamId: 'team' as TeamId, policy: { allowPublicTraffic: true, audit, network: openPolicy, maskRequestHost: null, previews: 'private' } });

describe('the event log', () => {
  it('writes in batches, in order, soon after', async () => {
    const store = new MemoryEvents();
    const log = new EventLog({ store, clock: systemClock });
    const names = Array.from({ length: 450 }, (_, i) => `e${i}`);
    for (const name of names) log.ofSandbox(sandbox(), 'lifecycle', name);
    assert.equal(store.batches.length, 0);
    await sleep(300);
    await log.stop();
    assert.deepEqual(store.names(), names);
    assert.deepEqual(store.batches.map((batch) => batch.length), [200, 200, 50]);
  });

  it('keeps lifecycle and administration of a sandbox that wants no audit, and nothing else', async () => {
    const store = new MemoryEvents();
    const log = new EventLog({ store, clock: systemClock });
    for (const category of ['lifecycle', 'admin', 'network', 'command', 'filesystem', 'snapshot', 'pty', 'security'] as const) log.ofSandbox(sandbox(false), category, category);
    await log.stop();
    assert.deepEqual(store.names(), ['lifecycle', 'admin']);
  });

  it('keeps events while the store fails, and writes them once when it works again', async () => {
    const store = new MemoryEvents();
    store.failing = true;
    const log = new EventLog({ store, clock: systemClock });
    for (let i = 0; i < 250; i++) log.ofTeam('team' as TeamId, `e${i}`);
    await log.flush();
    store.failing = false;
    log.ofTeam('team' as TeamId, 'e250');
    await log.stop();
    assert.deepEqual(store.names(), Array.from({ length: 251 }, (_, i) => `e${i}`));
  });

  it('drops the oldest when the store cannot follow, and records how many', async () => {
    const store = new MemoryEvents();
    store.slow = 20;
    const log = new EventLog({ store, clock: systemClock });
    log.ofTeam('team' as TeamId, 'first');
    const flushing = log.flush();
    for (let i = 0; i < 10_500; i++) log.ofTeam('team' as TeamId, `e${i}`);
    await flushing;
    await log.stop();
    const names = store.names();
    const dropped = store.batches.flat().filter((event) => event.name === 'events_dropped');
    assert.equal(names.at(0), 'first');
    assert.equal(names.at(-1), 'e10499');
    assert.deepEqual(dropped.map((event) => event.detail), [{ count: 500 }]);
    assert.equal(names.length, 1 + 10_000 + 1);
  });

  it('writes what is left when it stops, and nothing afterwards', async () => {
    const store = new MemoryEvents();
    const log = new EventLog({ store, clock: systemClock });
    log.ofTeam('team' as TeamId, 'before');
    await log.stop();
    log.ofTeam('team' as TeamId, 'after');
    await sleep(250);
    assert.deepEqual(store.names(), ['before']);
  });

  it('can be flushed and stopped when there is nothing', async () => {
    const log = new EventLog({ store: new MemoryEvents(), clock: systemClock });
    await log.flush();
    await log.stop();
  });
});
