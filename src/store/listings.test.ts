import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Server, never } from '../core/testing/server.ts';
import type { Sandbox } from '../core/sandbox.ts';
import type { SandboxQuery } from '../core/store.ts';

/** Listings by name, order and end, ports that are published, and the events of a team: on a real database. */
describe('listings', () => {
  let core: Server;
  const sandboxes: Sandbox[] = [];
  before(async () => {
    core = await Server.start();
    for (const name of ['beta', 'Alpha', '100%_x']) {
      sandboxes.push(await core.create({ name }));
      core.clock.offset += 1000;
    }
  });
  after(() => core[Symbol.asyncDispose]());

  const names = async (query: Partial<SandboxQuery>): Promise<readonly string[]> => {
    const page = await core.store.sandboxes.list(core.principal.teamId, { states: ['running', 'killed'], metadata: {}, limit: 10, ...query });
    return page.items.map(({ name }) => name);
  };

  test('are ordered as asked', async () => {
    assert.deepEqual(await names({}), ['100%_x', 'Alpha', 'beta']);
    assert.deepEqual(await names({ order: { by: 'createdAt', descending: false } }), ['beta', 'Alpha', '100%_x']);
    assert.deepEqual(await names({ order: { by: 'name', descending: false } }), ['100%_x', 'Alpha', 'beta']);
    assert.deepEqual(await names({ order: { by: 'name', descending: true }, limit: 1, offset: 1 }), ['Alpha']);
  });

  test('find a part of a name, without patterns, in either case', async () => {
    assert.deepEqual(await names({ nameContains: 'ALP' }), ['Alpha']);
    assert.deepEqual(await names({ nameContains: '%' }), ['100%_x']);
    assert.deepEqual(await names({ nameContains: '_x' }), ['100%_x']);
    assert.deepEqual(await names({ nameContains: 'none' }), []);
  });

  test('tell ends apart, and order by state', async () => {
    await core.sandboxes.kill(core.principal, { id: sandboxes[0]!.id });
    assert.deepEqual(await names({ endReasons: ['runtime_crashed'] }), ['100%_x', 'Alpha']);
    assert.deepEqual(await names({ endReasons: [] }), ['100%_x', 'Alpha']);
    assert.deepEqual(await names({ endReasons: ['killed'], states: ['killed'] }), ['beta']);
    assert.deepEqual(await names({ order: { by: { states: ['killed', 'running'] }, descending: false } }), ['beta', 'Alpha', '100%_x']);
  });

  test('of events are searched by category, text, time and outcome, over the whole team', async () => {
    core.events.ofTeam(core.principal.teamId, 'undo_failed', { message: 'x' });
    await core.events.flush();
    const search = async (query: object): Promise<string[]> => {
      const { items } = await core.store.events.search(core.principal.teamId, { categories: ['lifecycle', 'admin'], descending: false, limit: 10, offset: 0, ...query });
      return items.map((event) => `${event.name} ${event.sandboxName ?? '-'}`);
    };
    assert.deepEqual(await search({}), ['created beta', 'created Alpha', 'created 100%_x', 'ended beta', 'undo_failed -']);
    assert.deepEqual(await search({ text: 'BETA' }), ['created beta', 'ended beta']);
    assert.deepEqual(await search({ failed: true }), ['undo_failed -']);
    assert.deepEqual(await search({ failed: false, descending: true, limit: 1 }), ['ended beta']);
    assert.deepEqual(await search({ categories: ['admin'] }), ['undo_failed -']);
    assert.deepEqual(await search({ until: sandboxes[1]!.createdAt }), ['created beta']);
    const { total } = await core.store.events.search(core.principal.teamId, { categories: ['lifecycle'], descending: false, limit: 1, offset: 0 });
    assert.equal(total, 4);
  });
});

test('a port is published once, keeps or changes its access, and counts its tokens up', async () => {
  const core = await Server.start();
  try {
    const { id } = await core.create();
    const { previewPorts } = core.store;
    assert.deepEqual(await previewPorts.publish(id, 3000, 'private', null), { port: 3000, access: 'private', tokenVersion: 1 });
    assert.deepEqual(await previewPorts.publish(id, 3000, 'public', null), { port: 3000, access: 'private', tokenVersion: 1 });
    assert.equal((await previewPorts.rotate(id, 3000))?.tokenVersion, 2);
    assert.deepEqual(await previewPorts.publish(id, 3000, 'public', 'public'), { port: 3000, access: 'public', tokenVersion: 2 });
    assert.equal((await previewPorts.list(id)).length, 1);
    assert.equal(await previewPorts.rotate(id, 3001), null);
    await previewPorts.unpublish(id, 3000);
    assert.equal(await previewPorts.find(id, 3000), null);
  } finally {
    await core[Symbol.asyncDispose]();
  }
});

test('a death that was acknowledged counts as a deletion, with its reason kept', async () => {
  const core = await Server.start();
  try {
    const { id } = await core.create();
    core.host.kill(id, { reason: 'runtime_crashed', detail: 'boom' });
    for (let i = 0; i < 100 && (await core.sandboxes.get(core.principal, { id })).state !== 'killed'; i++) await new Promise((resolve) => setTimeout(resolve, 5));
    await core.sandboxes.acknowledgeDeath(core.principal, { id });
    const { end } = await core.sandboxes.get(core.principal, { id });
    assert.deepEqual([end?.reason, end?.detail], ['killed', 'runtime_crashed: boom']);
    await assert.rejects(core.processes.run(core.principal, { id }, { cmd: 'true', timeoutSeconds: 1 }, never), { code: 'gone' });
  } finally {
    await core[Symbol.asyncDispose]();
  }
});
