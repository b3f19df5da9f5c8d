import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { PaddockError } from '../core/errors.ts';
import { Room } from './room.ts';

const exbibyte = 2 ** 60;

function refused(text: RegExp): (reason: unknown) => boolean {
  return (reason) => reason instanceof PaddockError && reason.code === 'no_capacity' && text.test(reason.message);
}

test('what is kept for convenience is given up, all of it if need be, before anything is refused', async () => {
  let kept = 3;
  const room = new Room(tmpdir(), async () => kept > 0 && kept-- > 0);
  await room.assert(0);
  assert.equal(kept, 3);
  await assert.rejects(room.assert(exbibyte), refused(/MiB of memory left, and 1099511627776 MiB are needed; 512 MiB are kept free/));
  assert.equal(kept, 0);
});

test('memory for guests on their way counts as taken until they hold it', async () => {
  const room = new Room(tmpdir(), async () => false);
  assert.equal(room.isTight(), false);
  const halves: Disposable[] = [];
  await assert.rejects(async () => {
    // Never touched, so each would fit alone.
    for (let i = 0; i < 10_000; i++) halves.push(await room.reserve(256 * 1024 * 1024));
  }, refused(/memory left/));
  assert.ok(halves.length > 0);
  await assert.rejects(room.assert(256 * 1024 * 1024), refused(/memory left/));
  for (const half of halves) half[Symbol.dispose]();
  halves[0]![Symbol.dispose](); // twice counts once
  await room.assert(0);
  assert.equal(room.isTight(), false);
});
