import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ConnectionEvent } from '../core/network/egress.ts';
import { ConnectionLog } from './connection-log.ts';
import type { Batch } from './event-queue.ts';
import { SyntheticNames } from './synthetic-names.ts';
import { TokenBucket } from './token-bucket.ts';

function event(port: number, host = 'a.example'): ConnectionEvent {
  return { sandboxId: 'box' as never, at: 0, host, address: null, port, protocol: 'tcp', verdict: 'blocked', matchRule: 'domain', rule: null, reason: '', bytesSent: 0, bytesReceived: 0, durationMs: 0, count: 1 };
}

test('without a reader the oldest events go, and it is told how many', () => {
  const log = new ConnectionLog();
  for (let i = 0; i < 20_000; i++) log.record(event(i));
  assert.ok(log.waiting <= 8192);
  const batches: Batch<ConnectionEvent>[] = [];
  const reader = { deliver: (batch: Batch<ConnectionEvent>) => batches.push(batch) };
  log.attach(reader);
  for (let k = 1; log.waiting >= 128 && k < 1000; k++) {
    if (batches.length < k) log.record(event(0));
    log.acknowledge(reader, k);
  }
  const total = batches.reduce((sum, batch) => sum + batch.items.length + batch.dropped, 0);
  assert.ok(total + log.waiting >= 20_000);
  assert.ok(batches.every((batch) => batch.items.length <= 128));
});

test('equal refusals within a second become one event', async () => {
  const log = new ConnectionLog();
  for (let i = 0; i < 500; i++) log.recordRefusal(event(i % 2));
  await new Promise((resolve) => setTimeout(resolve, 1100));
  const batches: Batch<ConnectionEvent>[] = [];
  log.attach({ deliver: (batch) => batches.push(batch) });
  await new Promise((resolve) => setTimeout(resolve, 600));
  assert.deepEqual(batches[0]?.items.map((item) => [item.port, item.count]), [[0, 250], [1, 250]]);
});

test('a name keeps its address, also in the next life of the process; too many make room by age', () => {
  const names = new SyntheticNames('box', 3);
  const never = (): boolean => false;
  const first = names.allocate('a.example', never)!;
  assert.equal(names.allocate('a.example', never)?.address, first.address);
  assert.equal(new SyntheticNames('box', 3).allocate('a.example', never)?.address, first.address);
  names.allocate('b.example', never);
  names.allocate('c.example', never);
  names.touch('a.example');
  const replaced = names.allocate('d.example', never)?.replaced;
  assert.equal(names.nameOf(replaced!), null, 'b.example was longest unused');
  assert.equal(names.nameOf(first.address), 'a.example');
  assert.equal(names.allocate('e.example', () => true), null, 'every name has open connections');
});

test('a token bucket lets twice as many through at once as later in a second', () => {
  const bucket = new TokenBucket(10, 0);
  const taken = (now: number): number => Array.from({ length: 100 }, () => bucket.take(now)).filter(Boolean).length;
  assert.deepEqual([taken(0), taken(0), taken(500), taken(10_000)], [20, 0, 5, 20]);
});
