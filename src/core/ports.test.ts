import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { newSandboxId } from './ids.ts';
import { Server, never } from './testing/server.ts';
import { Tokens } from './tokens.ts';

describe('a port of a sandbox', () => {
  it('is reached with a key, and without one by whoever knows the sandbox', async () => {
    await using server = await Server.start();
    const { id, shortId } = await server.create();
    for (const visitor of [server.principal, null]) (await server.ports.open(visitor, { shortId }, 8080, never)).tunnel.destroy();
    assert.equal((await server.ports.open(server.principal, { id }, 8080, never)).host, 'localhost:8080');
  });

  it('is closed to everybody when the sandbox does not allow public traffic', async () => {
    await using server = await Server.start();
    const { id } = await server.create({ policy: { network: { allowPublicTraffic: false } } });
    await assert.rejects(server.ports.open(server.principal, { id }, 8080, never), {
      code: 'permission_denied',
      message: 'the sandbox was created with allow_public_traffic false, so its ports cannot be reached from outside',
    });
    // To a stranger it does not even exist.
    await assert.rejects(server.ports.open(null, { id }, 8080, never), { code: 'not_found' });
  });

  it('is reached with the traffic token of the sandbox, and of no other', async () => {
    await using server = await Server.start();
    const tokens = new Tokens(server.store.deriveKey('sandbox tokens'));
    const [mine, other] = [await server.create(), await server.create()];
    (await server.ports.open({ trafficToken: tokens.traffic(mine) }, { id: mine.id }, 8080, never)).tunnel.destroy();
    for (const trafficToken of [tokens.traffic(other), tokens.agent(mine), '', 'x'.repeat(10_000)]) {
      await assert.rejects(server.ports.open({ trafficToken }, { id: mine.id }, 8080, never), { code: 'unauthenticated' });
    }
    // Nor does a token tell which sandboxes there are.
    await assert.rejects(server.ports.open({ trafficToken: tokens.traffic(mine) }, { id: newSandboxId() }, 8080, never), { code: 'unauthenticated' });
  });

  it('is told the host that its owner wants it to see', async () => {
    await using server = await Server.start();
    const { id } = await server.create({ policy: { network: { maskRequestHost: 'app.example:${PORT}' } } });
    assert.equal((await server.ports.open(server.principal, { id }, 8080, never)).host, 'app.example:8080');
  });

  it('must be a port, not the agent, and somebody must listen', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    for (const port of [0, 65_536, 1.5, Number.NaN]) await assert.rejects(server.ports.open(server.principal, { id }, port, never), { code: 'invalid_argument' });
    await assert.rejects(server.ports.open(server.principal, { id }, 49_983, never), { code: 'permission_denied' });
    await assert.rejects(server.ports.open(server.principal, { id }, 81, never), { code: 'not_listening' });
  });
});
