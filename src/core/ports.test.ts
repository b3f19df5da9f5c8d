import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Server, never } from './testing/server.ts';

describe('a port of a sandbox', () => {
  it('is reached with a key, and without one by whoever knows the sandbox', async () => {
    await using server = await Server.start();
    const { id, shortId } = await server.create();
    (await server.ports.open(server.principal, { id }, 8080, never)).destroy();
    (await server.ports.open(null, { shortId }, 8080, never)).destroy();
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

  it('must be a port, not the agent, and somebody must listen', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    for (const port of [0, 65_536, 1.5, Number.NaN]) await assert.rejects(server.ports.open(server.principal, { id }, port, never), { code: 'invalid_argument' });
    await assert.rejects(server.ports.open(server.principal, { id }, 49_983, never), { code: 'permission_denied' });
    await assert.rejects(server.ports.open(server.principal, { id }, 81, never), { code: 'not_listening' });
  });
});
