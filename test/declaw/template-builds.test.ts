import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox, Template, TemplateBase } from '@declaw/sdk';
import { buildOver } from '../harness/builds.ts';
import { guestGroupsOf } from '../harness/machine.ts';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually, sleep } from '../harness/wait.ts';

const server = serverOfThisFile({ PADDOCK_IMAGE_ALIASES: 'ubuntu:22.04=base', PADDOCK_MAX_TEMPLATES: '8', PADDOCK_TEAM_BUILDS: '3' });

async function build(body: object): Promise<{ status: string; template_id: string; logs: string[]; error?: string }> {
  const { status, json, text } = await server.call('POST', '/templates/build', { json: body });
  assert.equal(status, 201, text);
  assert.equal(json.status, 'building');
  return buildOver(server, json.build_id);
}

test('a template is built with the SDK, and a sandbox made from it has what its steps made', async () => {
  const spec = new TemplateBase().fromBaseImage('base').setEnvs({ COLOUR: 'deep red' }).runCmd(['mkdir -p /opt/tool && echo "$COLOUR" > /opt/tool/colour']).runCmd(['chown', '-R', 'user', '/opt/tool']);
  const info = await Template.build(spec, 'tool', { cpuCount: 1, memoryMb: 512, diskMb: 2048 });
  assert.equal(info.status, 'building');
  assert.match(info.templateId ?? '', /^tpl-/);
  await eventually(async () => (await Template.getBuildStatus(info.buildId)).status === 'completed', { withinMs: 60_000 });
  const { logs } = await Template.getBuildStatus(info.buildId);
  assert.ok(logs.some((line) => line.startsWith('step 2/3: run mkdir')), logs.join('\n'));
  assert.equal(logs.at(-1), 'template ready');
  const sandbox = await Sandbox.create({ template: 'tool', envs: { MINE: '1' } });
  assert.equal(await output(sandbox, 'cat /opt/tool/colour; stat -c %U /opt/tool/colour; id -un; echo $COLOUR $MINE; pwd'), 'deep red\nuser\nuser\ndeep red 1\n/home/user\n');
  const { json } = await server.call('GET', `/sandboxes/${sandbox.sandboxId}`);
  assert.deepEqual([json.template_id, json.name, json.resources], [info.templateId, 'tool', { vcpus: 1, memory_mb: 512, disk_mb: 2048 }]);
  // What it writes is its own.
  await output(sandbox, 'echo changed > /opt/tool/colour; sudo rm -rf /usr/bin/git');
  const other = await Sandbox.create({ template: 'tool' });
  assert.equal(await output(other, 'cat /opt/tool/colour; git --version | cut -c1-3'), 'deep red\ngit\n');
  // It is paused and resumed, and remembers.
  await sandbox.pause();
  await sandbox.resume();
  assert.equal(await output(sandbox, 'cat /opt/tool/colour'), 'changed\n');
  await Sandbox.killMany([sandbox.sandboxId, other.sandboxId]);
});

test('a Dockerfile is built: its environment, directory, user and files are there', async () => {
  const dockerfile = 'ARG BASE=base\nFROM ${BASE}\nARG WORD=hello\nENV PATH=/opt/bin:$PATH GREETING="a ${WORD}"\nWORKDIR /srv/app\nRUN mkdir -p /opt/bin \\\n && printf "#!/bin/sh\\necho $WORD from tool\\n" > /opt/bin/tool && chmod +x /opt/bin/tool\nRUN useradd -m worker\nUSER worker\nWORKDIR data\nRUN echo "$(id -un) $(pwd)" > who\nEXPOSE 80\nCMD ["tool"]\n';
  const { status, logs, template_id: id, error } = await build({ alias: 'docker', template: { dockerfile } });
  assert.equal(status, 'completed', error);
  assert.ok(logs.some((line) => /^line \d+: CMD is not started/.test(line)), logs.join('\n'));
  const sandbox = await Sandbox.create({ template: 'docker' });
  const { stdout } = await sandbox.commands.run('tool; echo $GREETING; pwd; cat who', { user: 'worker' });
  assert.equal(stdout, 'hello from tool\na hello\n/srv/app/data\nworker /srv/app/data\n');
  // Whoever names no user is the template's.
  const { json } = await server.call('POST', `/sandboxes/${sandbox.sandboxId}/commands`, { json: { cmd: 'id -un; touch own && stat -c %U own' } });
  assert.equal(json.stdout, 'worker\nworker\n');
  await sandbox.kill({ wait: true });
  assert.equal((await server.call('DELETE', `/templates/${id}`)).status, 200);
  assert.equal((await server.call('GET', '/templates/docker')).status, 404);
});

test('a step that fails, fails the build with its output; only then can it be built again, and the alias stays taken', async () => {
  const { status, logs, error, template_id: id } = await build({ alias: 'broken', template: { base_image: 'base', run_cmds: ['echo good', 'echo about to fail >&2; test -e /tmp/no-such-file || exit 9'] } });
  assert.equal(status, 'failed');
  assert.match(error ?? '', /^step_failed: step 2\/2 failed after \d+s: exited with code 9$/);
  assert.deepEqual(logs.slice(-2), ['about to fail', error]);
  const create = await server.call('POST', '/sandboxes', { json: { template: 'broken' } });
  assert.deepEqual([create.status, create.json.code], [409, 'template_not_ready']);
  const taken = await server.call('POST', '/templates/build', { json: { alias: 'broken', template: {} } });
  assert.equal(taken.status, 409);
  assert.ok(taken.json.message.includes(id), taken.text);
  const again = await server.call('POST', `/templates/${id}/rebuild`);
  assert.equal(again.status, 201);
  const second = await buildOver(server, again.json.build_id);
  assert.equal(second.status, 'failed');
  assert.ok(second.logs.includes('step 1/2: run echo good (as before)'), second.logs.join('\n'));
  const ready = await server.call('POST', '/templates/tool/rebuild');
  assert.equal(ready.status, 409);
});

test('the default image is what the operator says it is; without that an image that cannot be had is said so', async () => {
  const { status, logs, error } = await build({ alias: 'default-image', template: { run_cmds: ['true'] } });
  assert.equal(status, 'completed', error);
  assert.ok(logs.includes('ubuntu:22.04 stands for the template base on this server'), logs.join('\n'));
  const missing = await build({ alias: 'no-image', template: { base_image: '198.51.100.7:5000/team/app:1' } });
  assert.equal(missing.status, 'failed');
  assert.match(missing.error ?? '', /^image_pull_failed: /);
});

test('a start command runs in every new sandbox from the beginning, and each sandbox is somebody of its own', async () => {
  const start = 'while true; do date +%s.%N > /tmp/beat; sleep 0.2; done';
  const { status, error, logs } = await build({ alias: 'beating', template: { base_image: 'base', envs: { A: 'template' }, start_cmd: start, ready_cmd: 'test -s /tmp/beat' } });
  assert.equal(status, 'completed', `${error}\n${logs.join('\n')}`);
  const [one, two] = await Promise.all([Sandbox.create({ template: 'beating', envs: { B: 'one' } }), Sandbox.create({ template: 'beating', envs: { A: 'two' } })]);
  for (const sandbox of [one, two]) {
    const beat = await output(sandbox, 'cat /tmp/beat');
    await eventually(async () => (await output(sandbox, 'cat /tmp/beat')) !== beat, { withinMs: 10_000 });
    assert.ok((await sandbox.commands.list()).some(({ cmd }) => cmd === start));
  }
  assert.equal(await output(one, 'echo $A $B'), 'template one\n');
  assert.equal(await output(two, 'echo $A $B'), 'two\n');
  const names = await Promise.all([one, two].map((sandbox) => output(sandbox, 'hostname; cat /etc/machine-id')));
  assert.notEqual(names[0], names[1]);
  // Rules of the create are in force.
  const closed = await Sandbox.create({ template: 'beating', allowInternetAccess: false });
  assert.notEqual((await closed.commands.run('curl -sS --max-time 5 http://198.51.100.1/ 2>&1')).exitCode, 0);
  // A template that is in use is not deleted; its sandboxes outlive a restart of the server.
  assert.equal((await server.call('DELETE', '/templates/beating')).status, 409);
  await server.stop();
  await server.start();
  const late = await Sandbox.create({ template: 'beating' });
  assert.ok((await late.commands.list()).some(({ cmd }) => cmd === start));
  for (const { sandboxId } of [one, two, closed, late]) await Sandbox.kill(sandboxId, { wait: true } as object);
  await eventually(async () => (await server.call('DELETE', '/templates/beating')).status === 200, { withinMs: 10_000 });
});

test('packages that are no packages, copies, and bodies of older clients', async () => {
  const refuse = async (body: object, message: RegExp): Promise<void> => {
    const { status, json } = await server.call('POST', '/templates/build', { json: body });
    assert.equal(status, 400);
    assert.match(json.message, message);
  };
  await refuse({ alias: 'x', template: { packages: ['curl', 'x; rm -rf /'] } }, /^template\.packages has "x; rm -rf \/", which is not the name/);
  await refuse({ alias: 'x', template: { copies: [{ src: 'a', dst: '/b' }] } }, /^template\.copies cannot be used/);
  await refuse({ template: {} }, /^alias is required$/);
  await refuse({ alias: 'x', disk_mb: 1, template: {} }, /^disk_mb must be a whole number from 128 to 102400, not 1$/);
  await refuse({ alias: 'x', template: { dockerfile: 'FROM base\nCOPY . /app' } }, /^template\.dockerfile line 2: COPY cannot be used/);
  const { status, json } = await server.call('POST', '/templates/build', { json: { base_image: 'base', run_cmds: ['true'], background: true } });
  assert.equal(status, 201);
  assert.equal((await buildOver(server, json.build_id)).status, 'completed');
  assert.equal((await server.call('DELETE', `/templates/${json.template_id}`)).status, 200);
});

test('built-in templates stay as they are', async () => {
  assert.equal((await server.call('DELETE', '/templates/base')).status, 403);
  assert.equal((await server.call('POST', '/templates/tpl-base/rebuild')).status, 403);
  assert.equal((await server.call('POST', '/templates/build', { json: { alias: 'base', template: {} } })).status, 409);
});

test('a server that dies in the middle of a build has failed it, and nothing of it is left', async () => {
  const { json } = await server.call('POST', '/templates/build', { json: { alias: 'interrupted', template: { base_image: 'base', run_cmds: ['echo first', 'echo second; sleep 600'] } } });
  await eventually(async () => (await server.call('GET', `/templates/builds/${json.build_id}`)).json.logs.includes('second'), { withinMs: 60_000 });
  await sleep(500); // the log is written in batches
  await server.crash();
  await server.start();
  const { status, error, logs } = await buildOver(server, json.build_id);
  assert.equal(status, 'failed');
  assert.match(error ?? '', /^build_failed: the server was restarted/);
  assert.ok(logs.includes('second') && logs.at(-1) === error, logs.join('\n'));
  assert.deepEqual(guestGroupsOf(server.dataDir), []);
  assert.equal((await server.call('DELETE', '/templates/interrupted')).status, 200);
});
