import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { guestGroupsOf, mountsBelow } from '../harness/machine.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { control, exec, make } from '../harness/superserve.ts';
import { eventually, sleep } from '../harness/wait.ts';

// Builds that are cancelled, deleted and killed at whatever they are doing.

const server = serverOfThisFile({ PADDOCK_TEAM_BUILDS: '10', PADDOCK_BUILDS: '3', PADDOCK_SUPERSERVE_TEAM_RATE: '0' });

const begin = async (name: string, build_spec: object = {}): Promise<{ id: string; build_id: string }> => {
  const { status, json, text } = await control(server, 'POST', '/templates', { json: { name, build_spec: { from: 'base', ...build_spec } } });
  assert.equal(status, 202, text);
  return json;
};

const statusOf = async (id: string, buildId: string): Promise<string> => (await control(server, 'GET', `/templates/${id}/builds/${buildId}`)).json.status;

async function over(id: string, buildId: string): Promise<string> {
  return eventually(async () => {
    const status = await statusOf(id, buildId);
    return ['ready', 'failed', 'cancelled'].includes(status) && status;
  }, { withinMs: 60_000 });
}

/** No guest of a build, no mount of a step, no half layer. */
async function nothingIsLeft(): Promise<void> {
  await eventually(() => {
    assert.deepEqual(guestGroupsOf(server.dataDir), []);
    assert.deepEqual(mountsBelow(server.dataDir).filter((point) => point.endsWith('/step/root')), []);
    assert.deepEqual(readdirSync(join(server.dataDir, 'layers')).filter((name) => name.includes('.') && !name.endsWith('.json')), []);
  }, { withinMs: 20_000 });
}

test('cancelled at any moment, a build leaves nothing, and its template can be deleted', async () => {
  const spec = { steps: [{ run: 'seq 1 2000 > /a' }, { workdir: '/w' }, { user: { name: 'app' } }, { run: 'seq 1 2000 > b' }], start_cmd: 'sleep 1000', ready_cmd: 'sleep 0.2' };
  const outcomes = await Promise.all(
    Array.from({ length: 9 }, async (_, i) => {
      const { id, build_id: buildId } = await begin(`race-${i}`, { ...spec, steps: [{ env: { key: 'N', value: String(i) } }, ...spec.steps] });
      await sleep(i * 450);
      assert.equal((await control(server, 'DELETE', `/templates/${id}/builds/${buildId}`)).status, 204);
      const status = await over(id, buildId);
      await eventually(async () => (await control(server, 'DELETE', `/templates/${id}`)).status === 204);
      return status;
    }),
  );
  assert.ok(outcomes.every((status) => status === 'cancelled' || status === 'ready'), outcomes.join());
  assert.ok(outcomes.includes('cancelled'));
  await nothingIsLeft();
});

test('killed at any moment, the server finds its builds failed, nothing of them left, and what was built before usable', async () => {
  const kept = await begin('kept', { steps: [{ run: 'echo kept > /kept' }], start_cmd: 'sleep 1000' });
  assert.equal(await over(kept.id, kept.build_id), 'ready');
  for (const [i, delay] of [200, 900, 1700, 2600].entries()) {
    const { id, build_id: buildId } = await begin(`killed-${i}`, { steps: [{ env: { key: 'N', value: String(i) } }, { run: 'seq 1 2000 > /a' }, { run: 'seq 1 2000 > /b' }], start_cmd: 'sleep 1000', ready_cmd: 'sleep 0.2' });
    await sleep(delay);
    await server.crash();
    await server.start();
    const status = await statusOf(id, buildId);
    assert.ok(status === 'failed' || status === 'ready', status);
    if (status === 'failed') assert.match((await control(server, 'GET', `/templates/${id}`)).json.error_message, /^build_failed: the server was restarted/);
    const sandbox = await make(server, { from_template: 'kept' });
    assert.equal((await exec(server, sandbox, 'cat /kept')).stdout, 'kept\n');
    await control(server, 'DELETE', `/sandboxes/${sandbox.id}`);
    // Built again it comes to its end.
    const again = await control(server, 'POST', `/templates/${id}/builds`);
    assert.equal(again.status, 201, again.text);
    assert.equal(await over(id, again.json.id), 'ready');
    assert.equal((await control(server, 'DELETE', `/templates/${id}`)).status, 204);
  }
  await nothingIsLeft();
  await server.stop();
  assert.equal((await server.paddock(['gc'])).code, 0);
  // One template with one step is there.
  const named = (directory: string): string[] => readdirSync(join(server.dataDir, directory)).filter((name) => /^[0-9a-f]{64}$/.test(name));
  assert.deepEqual([named('layers').length, named('roots').length, readdirSync(join(server.dataDir, 'checkpoints')).length], [1, 1, 1]);
  await server.start();
});

test('sandboxes are made from a template while it is built again and again, and each works', async () => {
  const { id, build_id: buildId } = await begin('turning', { steps: [{ run: 'date +%s%N > /made' }] });
  assert.equal(await over(id, buildId), 'ready');
  let building = true;
  const rebuild = async (): Promise<void> => {
    while (building) {
      const { status, json } = await control(server, 'POST', `/templates/${id}/builds`);
      assert.ok(status === 201 || status === 200);
      await over(id, json.id);
    }
  };
  const use = async (): Promise<void> => {
    for (let i = 0; i < 6; i++) {
      const sandbox = await make(server, { from_template: 'turning' });
      assert.match((await exec(server, sandbox, 'cat /made')).stdout, /^\d+\n$/);
      await control(server, 'DELETE', `/sandboxes/${sandbox.id}`);
    }
  };
  const rebuilding = rebuild();
  await Promise.all([use(), use()]).finally(() => (building = false));
  await rebuilding;
  await nothingIsLeft();
});
