import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { serverOfThisFile } from '../harness/server.ts';
import { control, exec, gatewayOfThisFile, make } from '../harness/superserve.ts';
import { eventually } from '../harness/wait.ts';

const server = serverOfThisFile({ PADDOCK_MAX_TEMPLATES: '7', PADDOCK_TEAM_BUILDS: '2', PADDOCK_BUILDS: '1' });
const gateway = gatewayOfThisFile(server);

const spec = (build_spec: object, name: string): object => ({ name, build_spec: { from: 'base', ...build_spec } });

/** A build that must end well. */
async function built(name: string, build_spec: object = {}): Promise<{ id: string; buildId: string }> {
  const { status, json, text } = await control(server, 'POST', '/templates', { json: spec(build_spec, name) });
  assert.equal(status, 202, text);
  assert.equal(json.status, 'building');
  assert.equal(await ended(json.id, json.build_id), 'ready');
  return { id: json.id, buildId: json.build_id };
}

async function ended(id: string, buildId: string): Promise<string> {
  return eventually(async () => {
    const { json } = await control(server, 'GET', `/templates/${id}/builds/${buildId}`);
    return ['ready', 'failed', 'cancelled'].includes(json.status) && (json.status as string);
  }, { withinMs: 60_000 });
}

test('the SDK builds a template, follows its log, and sandboxes have its environment, user, directory and start command', async () => {
  const found = await gateway.run(async ({ Template, Sandbox }) => {
    const template = await Template.create({
      name: 'team/served', vcpu: 1, memoryMib: 512, diskMib: 2048, from: 'base',
      steps: [
        { run: 'echo to stdout; echo to stderr >&2; echo "later: [$COLOUR]"' },
        { env: { key: 'COLOUR', value: 'deep $red' } },
        { user: { name: 'app', sudo: true } },
        { workdir: '/srv/app' },
        { run: 'echo "$(id -un) $(pwd) $COLOUR" > made && sudo sh -c "id -un" >> made' },
      ],
      startCmd: 'python3 -c 0 2>/dev/null; while true; do date +%s.%N > beat; sleep 0.2; done',
      readyCmd: 'test -s beat',
    } as never);
    const log: { stream: string; text: string; finished?: boolean | undefined; status?: string | undefined }[] = [];
    const info = await template.waitUntilReady({ pollIntervalMs: 200, onLog: ({ stream, text, finished, status }) => void log.push({ stream, text, finished, status }) });
    const replay: string[] = [];
    await template.streamBuildLogs({ onEvent: ({ text }) => void replay.push(text) });
    const sandbox = await Sandbox.create({ name: 'from it', fromTemplate: 'team/served', envVars: { MINE: '1' } } as never);
    const { stdout } = await sandbox.commands.run('cat made; id -un; pwd; echo $COLOUR $MINE; stat -c %U . beat');
    const beat = (await sandbox.commands.run('cat beat; sleep 1; cat beat')).stdout.trim().split('\n');
    let refused = '';
    await template.delete().catch((error: Error & { code?: string }) => (refused = `${error.name} ${error.message}`));
    const byName = await Template.connect('team/served').then((each) => each.id);
    await sandbox.kill();
    await template.delete();
    const gone = await Template.list({ namePrefix: 'team/' });
    return { info, log, replay, stdout, beat, refused, byName, id: template.id, gone: gone.length };
  });
  assert.equal(found.info.status, 'ready');
  assert.ok(found.info.builtAt);
  assert.deepEqual([found.info.vcpu, found.info.memoryMib, found.info.diskMib], [1, 512, 2048]);
  assert.equal(found.stdout, 'app /srv/app deep $red\nroot\napp\n/srv/app\ndeep $red 1\napp\napp\n');
  assert.notEqual(found.beat[0], found.beat[1]);
  assert.match(found.refused, /^ConflictError .*in use/);
  assert.equal(found.byName, found.id);
  assert.equal(found.gone, 0);
  assert.ok(found.log.some(({ stream, text }) => stream === 'stdout' && text === 'to stdout\n'), JSON.stringify(found.log));
  assert.ok(found.log.some(({ stream, text }) => stream === 'stderr' && text === 'to stderr\n'));
  assert.equal(found.replay.at(-1), 'template ready');
  assert.ok(found.replay.includes('to stdout\n'));
  assert.ok(found.replay.includes('later: []\n'));
});

test('a step that fails is a BuildError with its code, and a cancelled build a ConflictError', async () => {
  const found = await gateway.run(async ({ Template }) => {
    const failing = await Template.create({ name: 'failing', from: 'base', steps: [{ run: 'true' }, { run: 'false' }] } as never);
    const failure = await failing.waitUntilReady({ pollIntervalMs: 200 }).catch((error: Error & { code?: string; buildId?: string; templateId?: string }) => ({ name: error.name, message: error.message, code: error.code, buildId: error.buildId, templateId: error.templateId }));
    const info = await failing.getInfo();
    const again = await failing.rebuild();
    const slow = await Template.create({ name: 'slow', from: 'base', steps: [{ run: 'sleep 600' }] } as never);
    const [build] = await slow.listBuilds();
    await slow.cancelBuild(build!.id);
    await slow.cancelBuild(build!.id);
    const cancelled = await slow.waitUntilReady({ pollIntervalMs: 200 }).catch((error: Error & { code?: string }) => `${error.name} ${error.code}`);
    const hashes = [again.buildSpecHash, (await failing.listBuilds()).at(-1)?.buildSpecHash];
    for (const each of [failing, slow]) {
      for (let tries = 0; tries < 100; tries++) {
        try {
          await each.delete();
          break;
        } catch {
          await new Promise((resolve) => setTimeout(resolve, 200)); // still building
        }
      }
    }
    return { failure, failing: failing.id, info, again: again.status, cancelled, hashes };
  });
  const { failure, info } = found;
  assert.ok(typeof failure === 'object' && 'templateId' in failure);
  assert.deepEqual([failure.name, failure.code, failure.templateId], ['BuildError', 'step_failed', found.failing]);
  assert.match(failure.message, /^step 2\/2 failed after \d+s: exited with code 1$/);
  assert.deepEqual([info.status, info.errorMessage], ['failed', `step_failed: ${failure.message}`]);
  assert.equal(found.again, 'pending');
  assert.equal(found.cancelled, 'ConflictError cancelled');
  assert.match(found.hashes[0]!, /^[0-9a-f]{64}$/);
  assert.equal(found.hashes[0], found.hashes[1]);
});

test('a ready template serves while it is built again, and its sandboxes keep what they were made from', async () => {
  const { id } = await built('rebuilt', { steps: [{ run: 'date +%s%N > /made' }] });
  const before = await make(server, { from_template: 'rebuilt' });
  const { stdout: made } = await exec(server, before, 'cat /made');
  const again = await control(server, 'POST', `/templates/${id}/builds`);
  assert.equal(again.status, 201, again.text);
  const during = await make(server, { from_template: id });
  assert.equal((await exec(server, during, 'cat /made')).stdout, made);
  assert.equal(await ended(id, again.json.id), 'ready');
  const { json: builds, headers } = await control(server, 'GET', `/templates/${id}/builds?limit=1`);
  assert.equal(headers['content-type']?.split(';')[0], 'application/json');
  assert.deepEqual(builds.map((each: { id: string }) => each.id), [again.json.id]);
  for (const each of [before, during]) {
    assert.equal((await exec(server, each, 'cat /made')).stdout, made);
    await control(server, 'DELETE', `/sandboxes/${each.id}`);
  }
  assert.equal((await control(server, 'DELETE', `/templates/${id}`)).status, 204);
});

test('what happens to templates is in the activity', async () => {
  const { id } = await built('seen', {});
  assert.equal((await control(server, 'DELETE', '/templates/seen')).status, 204);
  const seen = await eventually(async () => {
    const { json } = await control(server, 'GET', '/activity?category=template&limit=200');
    const own = json.filter((each: { template_id?: string }) => each.template_id === id);
    return own.length === 3 && own;
  });
  assert.deepEqual(seen.map((each: any) => [each.category, each.action, each.status, each.metadata.template]), ['template_deleted', 'template_built', 'template_created'].map((action) => ['template', action, 'success', 'seen']));
});

test('of two rebuilds at once the second is told of the first; more builds than allowed are 429', async () => {
  const { id } = await built('busy');
  const slow = await control(server, 'POST', '/templates', { json: spec({ steps: [{ run: 'sleep 600' }] }, 'slow') });
  const waiting = await control(server, 'POST', `/templates/${id}/builds`);
  assert.deepEqual([waiting.status, waiting.json.status], [201, 'pending']);
  const same = await control(server, 'POST', `/templates/${id}/builds`);
  assert.deepEqual([same.status, same.json.id], [200, waiting.json.id]);
  const more = await control(server, 'POST', '/templates', { json: spec({}, 'more') });
  assert.deepEqual([more.status, more.json.error.code], [429, 'too_many_builds']);
  assert.match(more.json.error.message, /limit is 2/);
  assert.equal((await control(server, 'DELETE', `/templates/${id}`)).status, 409);
  assert.equal((await control(server, 'DELETE', `/templates/${slow.json.id}/builds/${slow.json.build_id}`)).status, 204);
  assert.equal(await ended(id, waiting.json.id), 'ready');
  for (const each of [id, slow.json.id]) assert.equal((await control(server, 'DELETE', `/templates/${each}`)).status, 204);
});

test('every limit of a create is told with its field', async () => {
  const refused: [object, RegExp][] = [
    [{ build_spec: { from: 'base' } }, /^name is required/],
    [{ name: 'Bad', build_spec: { from: 'base' } }, /^name must have at most 128 characters and match/],
    [{ name: 'superserve/mine', build_spec: { from: 'base' } }, /^name must not begin with superserve\//],
    [{ name: 'a' }, /^build_spec is required/],
    [{ name: 'a', build_spec: {} }, /^build_spec\.from is required/],
    [{ name: 'a', build_spec: { from: 'python:3.11-alpine' } }, /^build_spec\.from must not be an image of alpine/],
    [{ name: 'a', build_spec: { from: 'gcr.io/distroless/base' } }, /^build_spec\.from must not be an image of distroless/],
    [{ name: 'a', vcpu: 11, build_spec: { from: 'base' } }, /^vcpu must be from 1 to 10, but is 11/],
    [{ name: 'a', memory_mib: 255, build_spec: { from: 'base' } }, /^memory_mib must be from 256 to 20480/],
    [{ name: 'a', disk_mib: 65_537, build_spec: { from: 'base' } }, /^disk_mib must be from 1024 to 65536/],
    [{ name: 'a', build_spec: { from: 'base', steps: [{}] } }, /^build_spec\.steps\[0\] must have exactly one of run, env, workdir, user/],
    [{ name: 'a', build_spec: { from: 'base', steps: [{ run: 'a', workdir: '/b' }] } }, /^build_spec\.steps\[0\] must have exactly one/],
    [{ name: 'a', build_spec: { from: 'base', steps: [{ user: { name: 'A' } }] } }, /^build_spec\.steps\[0\]\.user\.name must match/],
    [{ name: 'a', build_spec: { from: 'base', steps: [{ copy: 'x' }] } }, /^invalid request body/],
    [{ name: 'a', build_spec: { from: 'base' }, extra: 1 }, /^invalid request body/],
    [{ alias: 'a', template: {} }, /^alias belongs to the Declaw API/],
  ];
  for (const [json, message] of refused) {
    const answer = await control(server, 'POST', '/templates', { json });
    assert.deepEqual([answer.status, answer.json.error.code], [400, 'bad_request'], JSON.stringify(json));
    assert.match(answer.json.error.message, message);
  }
  const taken = await control(server, 'POST', '/templates', { json: spec({}, 'base') });
  assert.equal(taken.status, 409);
  for (const [method, path] of [['GET', `/templates/${randomUUID()}`], ['GET', '/templates/none'], ['DELETE', '/templates/none'], ['GET', '/templates/none/builds'], ['DELETE', '/templates/superserve%2Fbase'], ['GET', `/templates/none/builds/${randomUUID()}`]] as const) {
    assert.equal((await control(server, method, path)).status, 404, `${method} ${path}`);
  }
});

test('templates are listed by owner, and without a valid key nothing of one is told', async () => {
  const { id, buildId } = await built('private', { steps: [{ run: 'echo secret' }] });
  const listed = await control(server, 'GET', '/templates?owner=team&sort=name');
  assert.deepEqual(listed.json.map((each: { name: string }) => each.name), ['private']);
  assert.equal(listed.headers['x-total-count'], '1');
  for (const path of [`/templates/${id}`, `/templates/${id}/builds`, `/templates/${id}/builds/${buildId}/logs`]) {
    assert.equal((await control(server, 'GET', path, { headers: { 'x-api-key': 'ss_live_00000000000000000000000000000000' } })).status, 401);
  }
  assert.equal((await control(server, 'DELETE', '/templates/private')).status, 204);
});
