import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApiClient, ConnectionConfig, Sandbox, SandboxPaginator } from '@declaw/sdk';
import { prepare, serverOfThisFile } from '../harness/server.ts';

const server = serverOfThisFile();
/** In the order of their creation; the last one is killed. */
const ids: string[] = [];

prepare(async () => {
  for (let i = 0; i < 5; i++) ids.push((await Sandbox.create({ metadata: { index: String(i), parity: i % 2 === 0 ? 'even' : 'odd' } })).sandboxId);
  await Sandbox.kill(ids[4]!, { wait: true });
});

async function list(query: string): Promise<{ ids: string[]; total: number; next: string | null }> {
  const { status, json } = await server.call('GET', `/sandboxes${query}`);
  assert.equal(status, 200, JSON.stringify(json));
  return { ids: json.sandboxes.map((each: { sandbox_id: string }) => each.sandbox_id), total: json.total, next: json.next_token };
}

test('a listing shows the living, newest first, with everything the SDK reads', async () => {
  assert.deepEqual(await list(''), { ids: [ids[3], ids[2], ids[1], ids[0]], total: 4, next: null });
  const { sandboxes } = await Sandbox.list({ limit: 1 });
  assert.equal(sandboxes.length, 1);
  assert.equal(sandboxes[0]?.sandboxId, ids[3]);
  assert.equal(sandboxes[0]?.templateId, 'tpl-base');
  assert.equal(sandboxes[0]?.state, 'running');
  assert.deepEqual(sandboxes[0]?.metadata, { index: '3', parity: 'odd' });
  assert.ok(sandboxes[0]?.startedAt instanceof Date);
});

test('the cursor walks through all pages without repeating or skipping, also when the SDK does it', async () => {
  const first = await list('?limit=3');
  assert.deepEqual(first.ids, [ids[3], ids[2], ids[1]]);
  assert.equal(first.total, 4);
  const newcomer = await Sandbox.create();
  const second = await list(`?limit=3&next_token=${encodeURIComponent(first.next ?? '')}`);
  assert.deepEqual([second.ids, second.next], [[ids[0]], null]);
  await newcomer.kill({ wait: true });

  const pages: string[][] = [];
  for await (const page of new SandboxPaginator(new ApiClient(new ConnectionConfig()), { limit: 2 })) pages.push(page.map((each) => each.sandboxId));
  assert.deepEqual(pages.filter((page) => page.length > 0), [[ids[3], ids[2]], [ids[1], ids[0]]]);
});

test('offset and limit page by number', async () => {
  assert.deepEqual((await list('?limit=2&offset=1')).ids, [ids[2], ids[1]]);
  assert.deepEqual(await list('?offset=4'), { ids: [], total: 4, next: null });
});

test('states select, as one word, as a list and repeated; "live" is "running"', async () => {
  const alive = [ids[3], ids[2], ids[1], ids[0]];
  assert.deepEqual((await list('?state=running')).ids, alive);
  assert.deepEqual((await list('?state=live')).ids, alive);
  assert.ok((await list('?state=killed')).ids.includes(ids[4]!));
  assert.ok(!(await list('?state=killed')).ids.includes(ids[0]!));
  assert.deepEqual((await list('?state=paused')).ids, []);
  for (const query of ['?state=running,killed', '?state=running&state=killed', '?state=all']) {
    const found = (await list(query)).ids;
    assert.ok(ids.every((id) => found.includes(id)), query);
  }
});

test('metadata selects, as JSON and key by key; what cannot be read is ignored', async () => {
  assert.deepEqual((await list(`?metadata=${encodeURIComponent('{"parity":"even"}')}`)).ids, [ids[2], ids[0]]);
  assert.deepEqual((await list('?metadata.parity=odd&metadata.index=3')).ids, [ids[3]]);
  assert.deepEqual(await list('?metadata.parity=neither'), { ids: [], total: 0, next: null });
  assert.equal((await list('?metadata=[object+Object]')).ids.length, 4);
  assert.equal((await list('?unknown=1')).ids.length, 4);
});

test('limits and cursors that cannot be are refused by name', async () => {
  for (const query of ['limit=0', 'limit=1001', 'limit=x', 'offset=-1', 'state=asleep', 'next_token=forged']) {
    const { status, json } = await server.call('GET', `/sandboxes?${query}`);
    assert.equal(status, 400, query);
    assert.match(json.message, new RegExp(query.slice(0, query.indexOf('='))), query);
  }
});
