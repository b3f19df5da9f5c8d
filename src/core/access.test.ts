import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { newRawKey } from './access.ts';
import { Server, until } from './testing/server.ts';

describe('an API key', () => {
  it('opens until it is revoked, at once', async () => {
    await using server = await Server.start();
    const { key, raw } = await server.access.createKey('mine');
    assert.match(raw, /^dcl_[A-Za-z0-9]{40}$/);
    assert.deepEqual(await server.access.authenticate(raw), { teamId: server.principal.teamId, keyId: key.id, scope: 'admin' });
    const [listed] = await server.access.listKeys();
    assert.ok(listed!.lastUsedAt! >= key.createdAt);
    assert.deepEqual({ ...listed, lastUsedAt: null }, key);
    assert.equal(await server.access.revokeKey(key.id), true);
    await assert.rejects(server.access.authenticate(raw), { code: 'unauthenticated' });
    assert.equal(await server.access.revokeKey(key.id), false);
  });

  it('that is missing, unknown or far too long is refused alike', async () => {
    await using server = await Server.start();
    const message = 'the API key is missing or not valid; make one with `paddock keys create`';
    for (const raw of ['', newRawKey(), 'x'.repeat(100_000)]) await assert.rejects(server.access.authenticate(raw), { code: 'unauthenticated', message });
  });

  it('is remembered for a second and not longer, also when the clock is set back', async () => {
    await using server = await Server.start();
    const { key, raw } = await server.access.createKey('mine');
    await server.access.authenticate(raw);
    // As another process on the same database would.
    await server.store.keys.revoke(server.principal.teamId, key.id, 1);
    await server.access.authenticate(raw);
    server.clock.offset -= 3_600_000;
    await assert.rejects(server.access.authenticate(raw), { code: 'unauthenticated' });
    server.clock.offset += 3_600_000 + 1001;
    await assert.rejects(server.access.authenticate(raw), { code: 'unauthenticated' });
  });

  it('stops at its expiry to the millisecond, also when it was remembered', async () => {
    await using server = await Server.start();
    const { raw } = await server.access.createKey('short', { scope: 'read', expiresAt: server.clock.now() + 500 });
    assert.equal((await server.access.authenticate(raw)).scope, 'read');
    server.clock.offset += 501;
    await assert.rejects(server.access.authenticate(raw), { code: 'unauthenticated' });
  });

  it('that is revoked or expires cuts what was opened with it, and nothing else', async () => {
    await using server = await Server.start();
    const [doomed, expiring, other] = [await server.access.createKey('a'), await server.access.createKey('b', { expiresAt: server.clock.now() + 60_000 }), await server.access.createKey('c')];
    const cut: string[] = [];
    const principals = await Promise.all([doomed, expiring, other].map(({ raw }) => server.access.authenticate(raw)));
    for (const [i, name] of ['doomed', 'expiring', 'other'].entries()) server.access.follow(principals[i]!, () => cut.push(name));
    server.access.follow(principals[0]!, () => cut.push('left'))();
    await server.access.revokeKey(doomed.key.id);
    assert.deepEqual(cut, ['doomed']);
    server.clock.offset += 60_001;
    await until('the expired one is cut', () => cut.length > 1);
    assert.deepEqual(cut, ['doomed', 'expiring']);
  });

  it('that the operator chose is added once, and does not come back after it was revoked', async () => {
    await using server = await Server.start();
    const first = await server.access.ensureKey('dcl_chosen');
    assert.deepEqual(await server.access.ensureKey('dcl_chosen'), first);
    assert.equal((await server.access.authenticate('dcl_chosen')).keyId, first.id);
    await server.access.revokeKey(first.id);
    await assert.rejects(server.access.ensureKey('dcl_chosen'), { code: 'conflict', message: 'this API key was revoked and cannot come back; choose another one' });
  });

  it('must be long enough and without spaces', async () => {
    await using server = await Server.start();
    for (const raw of ['short', 'has a space in it']) {
      await assert.rejects(server.access.ensureKey(raw), { code: 'invalid_argument', message: 'an API key must have 8 to 512 characters and no spaces' });
    }
  });
});
