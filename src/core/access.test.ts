import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { newRawKey } from './access.ts';
import { Server } from './testing/server.ts';

describe('an API key', () => {
  it('opens until it is revoked, at once', async () => {
    await using server = await Server.start();
    const { key, raw } = await server.access.createKey('mine');
    assert.match(raw, /^dcl_[A-Za-z0-9]{40}$/);
    assert.deepEqual(await server.access.authenticate(raw), { teamId: server.principal.teamId, keyId: key.id });
    assert.deepEqual(await server.access.listKeys(), [key]);
    assert.equal(await server.access.revokeKey(key.id), true);
    await assert.rejects(server.access.authenticate(raw), { code: 'unauthenticated' });
    assert.equal(await server.access.revokeKey(key.id), false);
  });

  it('that is missing, unknown or far too long is refused alike', async () => {
    await using server = await Server.start();
    const message = 'the API key is missing or not valid; make one with `paddock keys create`';
    for (const raw of ['', newRawKey(), 'x'.repeat(100_000)]) await assert.rejects(server.access.authenticate(raw), { code: 'unauthenticated', message });
  });

  it('is remembered for five seconds and not longer, also when the clock is set back', async () => {
    await using server = await Server.start();
    const { key, raw } = await server.access.createKey('mine');
    await server.access.authenticate(raw);
    // As another process on the same database would.
    await server.store.keys.revoke(server.principal.teamId, key.id, 1);
    await server.access.authenticate(raw);
    server.clock.offset -= 3_600_000;
    await assert.rejects(server.access.authenticate(raw), { code: 'unauthenticated' });
    server.clock.offset += 3_600_000 + 5001;
    await assert.rejects(server.access.authenticate(raw), { code: 'unauthenticated' });
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
