import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { PaddockError } from '../core/errors.ts';
import { openCgroup } from './cgroup.ts';
import { type Instance, openInstance } from './instance.ts';
import { silentLog } from './log.ts';
import { slotCapacity } from './network/addresses.ts';
import { ensureGateway, removeGateway } from './network/gateway.ts';
import { type Slot, Slots } from './slots.ts';

const never = new AbortController().signal;
const dir = mkdtempSync(join(tmpdir(), 'paddock-slots-'));
let instance: Instance;

before(async () => {
  instance = await openInstance(dir, undefined);
  await ensureGateway(instance);
});

after(async () => {
  await removeGateway(instance);
  await openCgroup(instance.cgroup).remove();
  rmSync(dir, { recursive: true });
});

test('when all addresses are taken, slots that are used for convenience only are given back, and then there is an error', async () => {
  const kept: Slot[] = [];
  const slots: Slots = new Slots(instance, {
    ahead: 0,
    diskMb: 64,
    relieve: async () => {
      const slot = kept.shift();
      if (slot !== undefined) await slots.release(slot);
      return slot !== undefined;
    },
    log: silentLog,
  });
  // All but two are in use elsewhere, as far as the books say.
  for (let number = 3; number <= slotCapacity(instance.subnet); number++) await slots.adopt(number, 64);
  kept.push(await slots.claim(64, never));
  const used = await slots.claim(64, never);
  const [{ number }] = kept as [Slot];
  const again = await slots.claim(64, never);
  assert.equal(again.number, number, 'the kept one had to go');
  assert.deepEqual(kept, []);
  await assert.rejects(slots.claim(64, never), (reason) => reason instanceof PaddockError && reason.code === 'no_capacity' && /All \d+ sandbox addresses .* are in use/.test(reason.message));
  for (const slot of [used, again]) await slots.discard(slot.number);
  await slots.close();
});

test('a slot can be built right after it was taken down', async () => {
  const slots = new Slots(instance, { ahead: 0, diskMb: 64, log: silentLog });
  for (let i = 0; i < 10; i++) {
    const slot = await slots.claim(64, never);
    assert.equal(slot.number, 1);
    await slots.release(slot);
  }
  await slots.close();
});
