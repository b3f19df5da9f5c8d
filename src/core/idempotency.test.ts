import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { PaddockError } from './errors.ts';
import { Idempotency } from './idempotency.ts';
import type { TeamId } from './ids.ts';
import type { Sandbox } from './sandbox.ts';
import { createInput, never, Server, until } from './testing/server.ts';

const code = (expected: string) => (error: unknown) => error instanceof PaddockError && error.code === expected;

/** One create with a key on a real core. */
function keyed(server: Server, key: string | undefined, body: object = {}, envs: Record<string, string> = {}): Promise<{ id: string; token: string }> {
  return server.idempotency.once(
    server.principal.teamId,
    key,
    body,
    (born) => server.sandboxes.create(server.principal, { ...createInput({ envs }), born }, never),
    (sandbox: Sandbox) => ({ id: sandbox.id, token: `secret of ${sandbox.id}` }),
  );
}

async function count(server: Server): Promise<number> {
  return (await server.sandboxes.living()).length;
}

describe('a create with an idempotency key', () => {
  test('is carried out once, and answered the same again, also after a restart', async () => {
    await using server = await Server.start();
    const first = await keyed(server, 'k');
    assert.deepEqual(await keyed(server, 'k'), first);
    await server.restart();
    assert.deepEqual(await keyed(server, 'k'), first);
    assert.equal(await count(server), 1);
  });

  test('answers with what was answered, also when the sandbox has ended since', async () => {
    await using server = await Server.start();
    const first = await keyed(server, 'k');
    await server.sandboxes.killAll('killed');
    assert.deepEqual(await keyed(server, 'k'), first);
    assert.equal(await count(server), 0);
  });

  test('without a key, with another one or of another team is another one', async () => {
    await using server = await Server.start();
    const ids = [await keyed(server, undefined), await keyed(server, undefined), await keyed(server, 'k'), await keyed(server, 'l')].map(({ id }) => id);
    assert.equal(new Set(ids).size, 4);
    const hashes = new Set<string>();
    const store = { sandboxes: server.store.sandboxes, idempotency: { ...fake(), claim: async (create: { keyHash: string; teamId: string }) => (hashes.add(`${create.teamId} ${create.keyHash}`), null) } };
    const other = new Idempotency({ store, clock: server.clock, secret: Buffer.alloc(32) });
    const sandbox = (await server.sandboxes.living())[0]!;
    for (const team of ['a', 'b']) await other.once(team as TeamId, 'k', {}, async () => sandbox, () => 1);
    assert.equal(hashes.size, 2);
  });

  test('fifty at once with one key make one sandbox', async () => {
    await using server = await Server.start();
    const { promise, resolve } = Promise.withResolvers<void>();
    server.host.onProvision = () => promise;
    const attempts = Array.from({ length: 50 }, () => keyed(server, 'k').then(({ id }) => id, (error: unknown) => (error as PaddockError).code));
    await until('one is being made', () => server.host.specs.length === 1);
    resolve();
    const outcomes = await Promise.all(attempts);
    assert.equal(outcomes.filter((each) => each === 'idempotency_in_progress').length, 49);
    const again = await Promise.all(Array.from({ length: 50 }, () => keyed(server, 'k').then(({ id }) => id)));
    assert.deepEqual(new Set(again), new Set(outcomes.filter((each) => each !== 'idempotency_in_progress')));
    assert.equal(await count(server), 1);
  });

  test('another body under the same key is refused, while it runs and afterwards', async () => {
    await using server = await Server.start();
    const first = keyed(server, 'k', { a: 1 });
    await assert.rejects(keyed(server, 'k', { a: 2 }), code('idempotency_key_reused'));
    await first;
    await assert.rejects(keyed(server, 'k', { a: 2 }), code('idempotency_key_reused'));
    await server.restart();
    await assert.rejects(keyed(server, 'k', { a: 2 }), code('idempotency_key_reused'));
  });

  test('one that failed is forgotten, so that trying again does something', async () => {
    await using server = await Server.start();
    server.host.onProvision = () => Promise.reject(new PaddockError('no_capacity', 'full'));
    await assert.rejects(keyed(server, 'k'), code('no_capacity'));
    server.host.onProvision = async () => undefined;
    await keyed(server, 'k', { another: 'body' });
    assert.equal(await count(server), 1);
  });

  test('a crash in the middle leaves the key free, for another body too', async () => {
    await using server = await Server.start();
    server.host.onProvision = () => new Promise(() => {});
    keyed(server, 'k').catch(() => {});
    await until('it is being made', () => server.host.specs.length === 1);
    server.host.onProvision = async () => undefined;
    await server.restart();
    assert.equal(await count(server), 0);
    const { id } = await keyed(server, 'k', { another: 'body' });
    assert.deepEqual((await server.sandboxes.living()).map((each) => each.id), [id]);
  });

  test('a crash between the sandbox and its answer leads to the sandbox that is there', async () => {
    await using server = await Server.start();
    const { idempotency } = server.store;
    idempotency.finish = () => new Promise(() => {});
    const lost = keyed(server, 'k');
    lost.catch(() => {});
    await until('it runs', async () => (await server.store.sandboxes.inStates(['running'])).length === 1);
    await server.restart();
    const [survivor] = await server.sandboxes.living();
    await assert.rejects(keyed(server, 'k', { another: 'body' }), code('idempotency_key_reused'));
    const answers = await Promise.all(Array.from({ length: 10 }, () => keyed(server, 'k')));
    assert.deepEqual(new Set(answers.map(({ id }) => id)), new Set([survivor!.id]));
    assert.equal(await count(server), 1);
  });

  test('an answer that cannot be stored is given all the same, and again', async () => {
    await using server = await Server.start();
    const finish = server.store.idempotency.finish;
    server.store.idempotency.finish = () => Promise.reject(new PaddockError('no_capacity', 'the disk is full'));
    const first = await keyed(server, 'k');
    assert.deepEqual(await keyed(server, 'k'), first);
    server.store.idempotency.finish = finish;
    assert.deepEqual(await keyed(server, 'k'), first);
    assert.equal(await count(server), 1);
  });

  test('one that failed and cannot be forgotten does not stay in progress', async () => {
    await using server = await Server.start();
    server.store.idempotency.release = () => Promise.reject(new PaddockError('no_capacity', 'the disk is full'));
    server.host.onProvision = () => Promise.reject(new PaddockError('no_capacity', 'full'));
    await assert.rejects(keyed(server, 'k'), code('no_capacity'));
    server.host.onProvision = async () => undefined;
    await keyed(server, 'k');
    assert.equal(await count(server), 1);
  });

  test('an answer is kept for a day', async () => {
    await using server = await Server.start();
    const first = await keyed(server, 'k');
    server.clock.offset = 24 * 3600 * 1000 - 60_000;
    assert.deepEqual(await keyed(server, 'k'), first);
    server.clock.offset += 120_000;
    assert.notDeepEqual(await keyed(server, 'k', { another: 'body' }), first);
  });

  test('neither key, body nor answer can be read from the database', async () => {
    await using server = await Server.start();
    await keyed(server, 'the-key-of-the-client', { envs: { A: 'planted-value' } }, { A: 'planted-value' });
    for (const file of ['paddock.db', 'paddock.db-wal']) {
      const bytes = readFileSync(join(server.directory, file));
      for (const text of ['the-key-of-the-client', 'planted-value', 'secret of ']) assert.ok(!bytes.includes(text), `${text} is in ${file}`);
    }
  });

  test('a key of no or too many characters is refused with its limit', async () => {
    await using server = await Server.start();
    for (const key of ['', 'k'.repeat(256)]) await assert.rejects(keyed(server, key), /Idempotency-Key must have 1 to 255 characters/);
    await keyed(server, 'k'.repeat(255));
  });
});

function fake() {
  const nothing = async (): Promise<void> => undefined;
  return { reclaim: async () => true, name: nothing, finish: nothing, release: nothing, purge: nothing };
}
