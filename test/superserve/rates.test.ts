import assert from 'node:assert/strict';
import { test } from 'node:test';
import { call } from '../harness/http.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { control, gatewayOfThisFile, make } from '../harness/superserve.ts';

const server = serverOfThisFile({ PADDOCK_SUPERSERVE_TEAM_RATE: '2:6', PADDOCK_MAX_SANDBOXES: '1' });
const gateway = gatewayOfThisFile(server);

test('the allowance is told with every answer, and 429 says when to come again', async () => {
  const answers = [];
  for (let i = 0; i < 8; i++) answers.push(await control(server, 'GET', '/sandboxes'));
  const first = answers[0]!;
  assert.deepEqual([first.status, first.headers['ratelimit-limit'], first.headers['ratelimit-remaining'], first.headers['ratelimit-reset']], [200, '6', '5', '1']);
  const last = answers.at(-1)!;
  assert.deepEqual([last.status, last.json.error.code, last.headers['retry-after'], last.headers['ratelimit-remaining']], [429, 'rate_limited', '1', '0']);
  assert.equal((await call(server.url, 'GET', '/superserve/health')).status, 200);
});

test('the SDK waits for its turn by itself where it may, and says 429 where it may not', async () => {
  await new Promise((resolve) => setTimeout(resolve, 3500));
  const seen = await gateway.run(async ({ Sandbox }) => {
    const lists = await Promise.allSettled(Array.from({ length: 8 }, () => Sandbox.list()));
    let posted = 'nothing';
    for (let i = 0; i < 20 && posted === 'nothing'; i++) posted = await Sandbox.connect('0f8fad5b-d9cb-469f-a165-70867728950e').then(() => '', (error: { name: string; code?: string }) => (error.name === 'NotFoundError' ? 'nothing' : `${error.name} ${error.code}`));
    return { lists: lists.filter((each) => each.status === 'fulfilled').length, posted };
  });
  assert.ok(seen.lists >= 7, String(seen.lists));
  assert.equal(seen.posted, 'RateLimitError rate_limited');
});

test('one sandbox too many is 429 with the cap in its message', async () => {
  await new Promise((resolve) => setTimeout(resolve, 3500));
  await make(server);
  const { status, json, headers } = await control(server, 'POST', '/sandboxes', { json: { name: 'more' } });
  assert.deepEqual([status, json.error.code, headers['retry-after']], [429, 'too_many_sandboxes', '5']);
  assert.match(json.error.message, /its limit is 1/);
});
