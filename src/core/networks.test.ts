import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { newSandboxId, type SandboxId } from './ids.ts';
import type { ConnectionEvent } from './network/egress.ts';
import { parsePolicy } from './network/parse.ts';
import { ruleTexts, type NetworkRules } from './network/rules.ts';
import type { NetworkReplacement } from './networks.ts';
import type { Declared } from './sandbox.ts';
import { Server, until } from './testing/server.ts';

const rules = (allow: string[], deny: string[] = []): NetworkReplacement => ({
  network: parsePolicy({ allow, deny }),
  declare: (before: Declared) => ({ ...before, network: { allow_out: allow, deny_out: deny } }),
});

function connection(sandboxId: SandboxId, changes: Partial<ConnectionEvent> = {}): ConnectionEvent {
  return { sandboxId, at: Date.now(), host: 'x.com', address: '1.2.3.4', port: 443, protocol: 'tcp', verdict: 'allowed', matchRule: 'default', rule: null, reason: '', bytesSent: 1, bytesReceived: 2, durationMs: 3, count: 1, ...changes };
}

function inForce(server: Server, id: SandboxId): NetworkRules | null {
  const policy = server.host.networks.get(id);
  return policy === undefined ? null : ruleTexts(policy);
}

describe('the rules of a sandbox', () => {
  it('go to the machine with the guest, and again after a restart', async () => {
    await using server = await Server.start();
    const { id } = await server.create({ policy: { network: { allowOut: ['*.x.com'], denyOut: ['*'] } } });
    assert.equal(server.host.specs[0]?.teamId, server.principal.teamId);
    assert.deepEqual(inForce(server, id), { allow: ['*.x.com'], deny: ['*'] });
    server.host.networks.clear();
    await server.restart();
    assert.deepEqual(inForce(server, id), { allow: ['*.x.com'], deny: ['*'] });
    assert.deepEqual((await server.networks.explain(server.principal, { id }, 'a.x.com')).verdict.rule, '*.x.com');
  });

  it('are replaced in force, in the row and in the echo, also over a restart', async () => {
    await using server = await Server.start();
    const { id } = await server.create({ declared: { secure: true } });
    const changed = await server.networks.replace(server.principal, { id }, rules(['y.com']));
    assert.deepEqual(changed.declared, { secure: true, network: { allow_out: ['y.com'], deny_out: [] } });
    assert.deepEqual(inForce(server, id), { allow: ['y.com'], deny: [] });
    await server.restart();
    assert.deepEqual(inForce(server, id), { allow: ['y.com'], deny: [] });
    assert.deepEqual((await server.sandboxes.get(server.principal, { id })).declared, changed.declared);
  });

  it('stay as they were when the machine refuses the new ones', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    server.host.onSetNetwork = async () => {
      throw new Error('the proxy is away');
    };
    await assert.rejects(server.networks.replace(server.principal, { id }, rules(['y.com'])), { code: 'internal', message: 'the proxy is away' });
    assert.deepEqual(ruleTexts((await server.sandboxes.get(server.principal, { id })).policy.network), { allow: [], deny: [] });
    assert.deepEqual(inForce(server, id), { allow: [], deny: [] });
  });

  it('go back on the machine when the row cannot be written', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    server.host.onSetNetwork = async (_id, policy) => {
      if (policy.allow.length > 0) server.storeDelay = () => Promise.reject(new Error('the disk is full'));
    };
    await assert.rejects(server.networks.replace(server.principal, { id }, rules(['y.com'])), { message: 'the disk is full' });
    server.storeDelay = async () => undefined;
    assert.deepEqual(inForce(server, id), { allow: [], deny: [] });
    assert.deepEqual(ruleTexts((await server.sandboxes.get(server.principal, { id })).policy.network), { allow: [], deny: [] });
  });

  it('end as the last of many replacements says, in force and in the row alike', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    server.host.onSetNetwork = async () => new Promise((resolve) => setTimeout(resolve, Math.random() * 5));
    await Promise.all(Array.from({ length: 20 }, (_, i) => server.networks.replace(server.principal, { id }, rules([`n${i}.com`]))));
    assert.deepEqual(inForce(server, id), { allow: ['n19.com'], deny: [] });
    assert.deepEqual(ruleTexts((await server.sandboxes.get(server.principal, { id })).policy.network).allow, ['n19.com']);
  });

  it('cannot be replaced after the end, by another team, or by more than may be kept', async () => {
    await using server = await Server.start({ maxDeclaredBytes: 100 });
    const { id } = await server.create();
    await assert.rejects(server.networks.replace({ ...server.principal, teamId: 'other' as never }, { id }, rules([])), { code: 'not_found' });
    await assert.rejects(server.networks.replace(server.principal, { id }, rules([`${'a'.repeat(60)}.${'b'.repeat(60)}.com`])), { code: 'invalid_argument', message: /^network and security take \d+ bytes together; the limit is 100$/ });
    await server.sandboxes.kill(server.principal, { id });
    await assert.rejects(server.networks.replace(server.principal, { id }, rules([])), { code: 'gone' });
  });

  it('do not bring back a sandbox that is killed meanwhile', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    server.host.onSetNetwork = async () => {
      await server.sandboxes.kill(server.principal, { id });
    };
    await assert.rejects(server.networks.replace(server.principal, { id }, rules(['y.com'])), { code: 'gone' });
    assert.equal((await server.sandboxes.get(server.principal, { id })).state, 'killed');
  });
});

describe('the network log', () => {
  it('is read newest first, page by page, also after the end of the sandbox and of the server', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    const { id: other } = await server.create();
    const [first, second, third] = [1000, 2000, 3000].map((ms) => Date.now() - 10_000 + ms);
    const oldest = connection(id, { at: first! });
    await server.host.connected(oldest, connection(other), connection(id, { at: third!, verdict: 'blocked', rule: '*' }), connection(id, { at: second! }));
    await server.sandboxes.kill(server.principal, { id });
    await server.restart();
    const page = await server.networks.connections(server.principal, { id }, { limit: 2 });
    assert.deepEqual([page.items.map((each) => each.at), page.more], [[third, second], true]);
    const rest = await server.networks.connections(server.principal, { id }, { limit: 2, before: page.items[1]! });
    assert.deepEqual([rest.items.map((each) => each.at), rest.more], [[first], false]);
    assert.deepEqual(rest.items[0], { seq: 1, ...oldest });
    assert.deepEqual((await server.networks.connections(server.principal, { id }, { limit: 9, verdict: 'blocked' })).items.map((each) => each.rule), ['*']);
    await assert.rejects(server.networks.connections({ ...server.principal, teamId: 'other' as never }, { id }, { limit: 2 }), { code: 'not_found' });
    await assert.rejects(server.networks.connections(server.principal, { id }, { limit: 1001 }), { code: 'invalid_argument' });
  });

  it('is asked to take again what it could not store, and takes nothing of sandboxes that never were', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    await server.host.connected(connection(newSandboxId()), connection(id));
    assert.equal((await server.networks.connections(server.principal, { id }, { limit: 10 })).items.length, 1);
    const restored = server.store.networkEvents.append;
    server.store.networkEvents.append = () => Promise.reject(new Error('the disk is full'));
    await assert.rejects(server.host.connected(connection(id)), { message: 'the disk is full' });
    server.store.networkEvents.append = restored;
  });

  it('is part of the audit trail, unless that is switched off', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    const { id: quiet } = await server.create({ policy: { security: { audit: { enabled: false } } } });
    await server.host.connected(connection(id), connection(quiet));
    await server.networks.replace(server.principal, { id }, rules(['y.com']));
    await server.sandboxes.kill(server.principal, { id });
    await server.sandboxes.kill(server.principal, { id: quiet });
    const names = async (of: SandboxId, limit = 100): Promise<string[]> =>
      (await server.networks.audit(server.principal, { id: of }, limit)).map((each) => (each.kind === 'event' ? each.event.name : each.connection.verdict));
    await until('the end is recorded', async () => (await names(id)).includes('ended'));
    assert.deepEqual(await names(id), ['created', 'allowed', 'network_changed', 'ended']);
    assert.deepEqual(await names(id, 2), ['network_changed', 'ended']);
    assert.deepEqual(await names(quiet), ['created', 'ended']);
  });
});
