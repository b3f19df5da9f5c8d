import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { SandboxId } from '../core/ids.ts';
import { type KeepingLimits, type KeptGuest, KeptGuests } from './kept.ts';
import { silentLog } from './log.ts';
import type { Runtime } from './runtime.ts';

/** Keeps books of what is asked of it. */
function keeper(limits: KeepingLimits): { kept: KeptGuests; ended: string[]; frozen: string[]; dead: Set<string>; unfreezable: Set<string> } {
  const books = { ended: [] as string[], frozen: [] as string[], dead: new Set<string>(), unfreezable: new Set<string>() };
  const runtime = {
    isAlive: ({ container }: { container: string }) => !books.dead.has(container),
    freeze: async (container: string) => {
      if (books.unfreezable.has(container)) throw new Error('does not freeze');
      books.frozen.push(container);
    },
  } as unknown as Runtime;
  return { ...books, kept: new KeptGuests(runtime, limits, async (guest) => void books.ended.push(guest.checkpointId), silentLog) };
}

function guest(name: string, memoryBytes = 100): KeptGuest {
  return { sandboxId: `sandbox-${name}` as SandboxId, checkpointId: name, memoryBytes, slot: {} as KeptGuest['slot'], handle: { container: name } as KeptGuest['handle'] };
}

const roomy: KeepingLimits = { memoryBytes: 1000, seconds: 600 };

test('a kept guest is frozen, and can be taken once, by its own sandbox', async () => {
  const { kept, ended, frozen } = keeper(roomy);
  await kept.keep(guest('a'));
  assert.deepEqual(frozen, ['a']);
  assert.equal(kept.take('a', 'sandbox-b' as SandboxId), null);
  assert.equal(kept.take('a', 'sandbox-a' as SandboxId)?.checkpointId, 'a');
  assert.equal(kept.take('a', 'sandbox-a' as SandboxId), null);
  assert.deepEqual(ended, []);
});

test('the oldest go when all together are over the budget', async () => {
  const { kept, ended } = keeper({ memoryBytes: 250, seconds: 600 });
  for (const name of ['a', 'b', 'c']) await kept.keep(guest(name));
  assert.deepEqual(ended, ['a']);
  await kept.keep(guest('d', 250));
  assert.deepEqual(ended, ['a', 'b', 'c']);
});

test('one that is over the budget alone is ended and pushes nobody out', async () => {
  const { kept, ended } = keeper({ memoryBytes: 250, seconds: 600 });
  await kept.keep(guest('a'));
  await kept.keep(guest('huge', 251));
  assert.deepEqual(ended, ['huge']);
});

test('nothing is kept when it is switched off', async () => {
  for (const limits of [{ memoryBytes: 0, seconds: 600 }, { memoryBytes: 1000, seconds: 0 }]) {
    const { kept, ended, frozen } = keeper(limits);
    await kept.keep(guest('a'));
    assert.deepEqual([ended, frozen], [['a'], []]);
  }
});

test('those whose time is over and the dead are ended', async () => {
  const { kept, ended, dead } = keeper({ memoryBytes: 1000, seconds: 0.05 });
  await kept.keep(guest('a'));
  kept.prune(() => false);
  assert.deepEqual(ended, []);
  await sleep(60);
  kept.prune(() => false);
  assert.deepEqual(ended, ['a']);
  await kept.keep(guest('b'));
  dead.add('b');
  assert.equal(kept.take('b', 'sandbox-b' as SandboxId), null);
  kept.prune(() => false);
  assert.deepEqual(ended, ['a', 'b']);
});

test('when memory is short they go one by one, the oldest first', async () => {
  const { kept, ended } = keeper(roomy);
  for (const name of ['a', 'b']) await kept.keep(guest(name));
  kept.prune(() => true);
  assert.deepEqual(ended, ['a']);
  kept.prune(() => true);
  assert.deepEqual(ended, ['a', 'b']);
  assert.equal(await kept.evictOldest(), false);
});

test('one that cannot be frozen would cost CPU, and is ended', async () => {
  const { kept, ended, unfreezable } = keeper(roomy);
  unfreezable.add('a');
  await kept.keep(guest('a'));
  assert.deepEqual(ended, ['a']);
});

test('a guest goes with its sandbox or its checkpoint', async () => {
  const { kept, ended } = keeper(roomy);
  for (const name of ['a', 'b', 'c']) await kept.keep(guest(name));
  await kept.evict({ sandboxId: 'sandbox-b' as SandboxId });
  await kept.evict({ checkpointId: 'a' });
  await kept.evict({ checkpointId: 'a' });
  assert.deepEqual(ended, ['b', 'a']);
  await kept.evictAll();
  assert.deepEqual(ended, ['b', 'a', 'c']);
});
