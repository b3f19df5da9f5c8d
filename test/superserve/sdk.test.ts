import assert from 'node:assert/strict';
import { test } from 'node:test';
import { guestGroupsOf, guestProcessesOf } from '../harness/machine.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { control, gatewayOfThisFile, make } from '../harness/superserve.ts';
import { eventually } from '../harness/wait.ts';

// The official SDK, unmodified, in a process of its own behind `paddock gateway superserve`: nothing but its environment leads here.

const server = serverOfThisFile({ PADDOCK_SUPERSERVE_TEAM_RATE: '0' });
const gateway = gatewayOfThisFile(server);

test('create, run, stream, write, read, download, spawn and kill', async () => {
  const seen = await gateway.run(async ({ Sandbox }) => {
    const sandbox = await Sandbox.create({ name: 'all', timeoutSeconds: 300, metadata: { suite: 'sdk' }, envVars: { GREETING: 'hello' } });
    const info = await sandbox.getInfo();
    const ran = await sandbox.commands.run('echo "$GREETING $MINE"; pwd; echo oops >&2; exit 3', { cwd: '/tmp', env: { MINE: 'there' } });
    const chunks: string[] = [];
    const streamed = await sandbox.commands.run('for i in 1 2 3; do echo $i; done; echo e >&2', { onStdout: (text: string) => void chunks.push(text), onStderr: () => {} });
    await sandbox.files.write('/home/user/deep/a.txt', 'text ✓');
    await sandbox.files.write('/home/user/deep/b.bin', new Uint8Array([0, 255, 1, 254]));
    const text = await sandbox.files.readText('/home/user/deep/a.txt');
    const bytes = [...(await sandbox.files.read('/home/user/deep/b.bin'))];
    const zip = await sandbox.files.downloadDir('/home/user/deep');
    const out: string[] = [];
    const session = await sandbox.commands.spawn('read line; echo "got $line"; cat', { onStdout: (each: string) => void out.push(each) });
    session.stdin.write('first\nrest');
    session.stdin.close();
    const spawned = await session.wait();
    const url = sandbox.getPreviewUrl(3000);
    const listed = (await Sandbox.list({ metadata: { suite: 'sdk' } })).map((each) => each.id);
    await sandbox.kill();
    const after = (await Sandbox.list({ metadata: { suite: 'sdk' } })).length;
    return { id: sandbox.id, info, ran, chunks, streamed, text, bytes, zip: Buffer.from(zip).toString('latin1', 0, 4), zipNames: Buffer.from(zip).toString('latin1').includes('deep/a.txt'), out, spawned, url, listed, after };
  });
  assert.equal(seen.info.status, 'active');
  assert.equal(seen.info.name, 'all');
  assert.deepEqual([seen.info.vcpuCount, seen.info.memoryMib], [1, 1024]);
  assert.equal(seen.info.timeoutSeconds, 300);
  assert.deepEqual(seen.ran, { stdout: 'hello there\n/tmp\n', stderr: 'oops\n', exitCode: 3 });
  assert.equal(seen.chunks.join(''), '1\n2\n3\n');
  assert.deepEqual(seen.streamed, { stdout: '1\n2\n3\n', stderr: 'e\n', exitCode: 0 });
  assert.equal(seen.text, 'text ✓');
  assert.deepEqual(seen.bytes, [0, 255, 1, 254]);
  assert.equal(seen.zip, 'PK\x03\x04');
  assert.ok(seen.zipNames);
  assert.deepEqual(seen.spawned, { stdout: 'got first\nrest', stderr: '', exitCode: 0 });
  assert.equal(seen.out.join(''), 'got first\nrest');
  assert.equal(seen.url, `https://3000-${seen.id}.sandbox.superserve.ai`);
  assert.deepEqual(seen.listed, [seen.id]);
  assert.equal(seen.after, 0);
});

test('a process that is spawned gets signals, fails in its own words, and ends with its session', async () => {
  const seen = await gateway.run(async ({ Sandbox }) => {
    const sandbox = await Sandbox.create({ name: 'spawn' });
    const trapped = await sandbox.commands.spawn("trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.1; done", { onStdout: (text: string) => text.includes('ready') && trapped.kill('SIGINT') });
    const caught = await trapped.wait();
    const ended = await (await sandbox.commands.spawn('sleep 300', { timeoutMs: 1000 })).wait();
    const nowhere = await (await sandbox.commands.spawn('true', { cwd: '/not/there' })).wait();
    const left = await sandbox.commands.spawn('exec sleep 4321');
    await sandbox.commands.run('until pgrep -f "sleep 4321" >/dev/null; do sleep 0.1; done');
    await left.close();
    const gone = await sandbox.commands.run('for i in $(seq 50); do pgrep -f "slee[p] 4321" >/dev/null || exit 0; sleep 0.1; done; exit 1');
    const large = await sandbox.commands.spawn('wc -c');
    large.stdin.write('x'.repeat(3_000_000));
    large.stdin.close();
    const counted = await large.wait();
    await sandbox.kill();
    return { caught, ended, nowhere, gone, counted };
  });
  assert.deepEqual([seen.caught.stdout, seen.caught.exitCode], ['ready\ncaught\n', 7]);
  assert.equal(seen.ended.exitCode, 124);
  assert.match(seen.nowhere.stderr, /working directory "\/not\/there"/);
  assert.equal(seen.gone.exitCode, 0);
  assert.equal(seen.counted.stdout.trim(), '3000000');
});

test('errors arrive as the classes that the SDK has for them', async () => {
  const seen = await gateway.run(async ({ Sandbox }) => {
    const failed = async (work: () => Promise<unknown>): Promise<[string, number | undefined, string | undefined]> => {
      try {
        await work();
        return ['nothing', 0, ''];
      } catch (error) {
        const { name, statusCode, code } = error as { name: string; statusCode?: number; code?: string };
        return [name, statusCode, code];
      }
    };
    const sandbox = await Sandbox.create({ name: 'errors' });
    const results = {
      name: await failed(() => Sandbox.create({ name: 'x'.repeat(65) })),
      metadata: await failed(() => Sandbox.create({ name: 'x', metadata: { 'superserve.mine': '1' } })),
      env: await failed(() => Sandbox.create({ name: 'x', envVars: { A: 'x'.repeat(8193) } })),
      template: await failed(() => Sandbox.create({ name: 'x', fromTemplate: 'no/such' })),
      snapshot: await failed(() => Sandbox.create({ name: 'x', fromSnapshot: '00000000-0000-4000-8000-000000000000' })),
      secret: await failed(() => Sandbox.create({ name: 'x', secrets: { A: 'none' } })),
      key: await failed(() => Sandbox.create({ name: 'x', apiKey: 'ss_live_wrong' })),
      connect: await failed(() => Sandbox.connect('00000000-0000-4000-8000-000000000000')),
      update: await failed(() => sandbox.update({})),
      resume: await failed(() => sandbox.resume()),
      file: await failed(() => sandbox.files.read('/no/such/file')),
      directory: await failed(() => sandbox.files.read('/etc')),
      full: await failed(() => sandbox.commands.run('mkdir /small && mount -t tmpfs -o size=1m none /small').then(() => sandbox.files.write('/small/file', 'x'.repeat(5_000_000)))),
    };
    await Sandbox.killById(sandbox.id);
    await sandbox.kill(); // a second time: nothing is there, and nothing is wrong
    return { ...results, deleted: await failed(() => sandbox.getInfo()), inside: await failed(() => sandbox.commands.run('true')) };
  });
  assert.deepEqual(seen, {
    name: ['ValidationError', 400, 'bad_request'],
    metadata: ['ValidationError', 400, 'bad_request'],
    env: ['ValidationError', 400, 'bad_request'],
    template: ['NotFoundError', 404, 'not_found'],
    snapshot: ['NotFoundError', 404, 'snapshot_not_found'],
    secret: ['ValidationError', 400, 'secret_not_found'],
    key: ['AuthenticationError', 401, 'auth_failed'],
    connect: ['NotFoundError', 404, 'not_found'],
    update: ['ValidationError', 400, 'bad_request'],
    resume: ['ConflictError', 409, 'conflict'],
    file: ['NotFoundError', 404, 'not_found'],
    directory: ['ValidationError', 400, 'bad_request'],
    full: ['ServerError', 507, 'sandbox_storage_full'],
    deleted: ['NotFoundError', 404, 'not_found'],
    inside: ['NotFoundError', 404, 'sandbox_route_stale'],
  });
});

test('a token that has run out is replaced without anybody noticing, and concurrent calls share the replacement', async () => {
  const made = await make(server);
  const seen = await gateway.run(async ({ Sandbox }, id: string) => {
    const sandbox = await Sandbox.connect(id);
    const mine = sandbox as unknown as { _accessToken: string };
    mine._accessToken = '0'.repeat(64);
    const results = await Promise.all([sandbox.commands.run('echo a'), sandbox.commands.run('echo b'), sandbox.files.write('/tmp/x', 'y')]);
    mine._accessToken = '1'.repeat(64);
    const session = await sandbox.commands.spawn('echo spawned');
    return { outputs: [results[0].stdout, results[1].stdout], spawned: (await session.wait()).stdout, replaced: mine._accessToken };
  }, made.id);
  assert.deepEqual(seen.outputs, ['a\n', 'b\n']);
  assert.equal(seen.spawned, 'spawned\n');
  assert.equal(seen.replaced, made.token);
});

test('metadata and rules change by update, and the network log is read page by page', async () => {
  const seen = await gateway.run(async ({ Sandbox }) => {
    const sandbox = await Sandbox.create({ name: 'rules', network: { denyOut: ['198.51.100.0/24'] } });
    await sandbox.update({ metadata: { stage: 'two' }, network: { allowOut: ['93.184.216.34', 'api.example.com'] } });
    await Sandbox.updateById(sandbox.id, { metadata: { stage: 'three' } });
    const info = await sandbox.getInfo();
    // Refused by the rules: nothing leaves this machine.
    await sandbox.commands.run('for i in 1 2 3; do curl -s -m 2 http://198.51.100.$i/; sleep 0.3; done; true');
    let page = await sandbox.getNetworkLog({ verdict: 'blocked' });
    for (let i = 0; i < 50 && page.events.length < 3; i++) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      page = await sandbox.getNetworkLog({ verdict: 'blocked' });
    }
    const first = await sandbox.getNetworkLog({ limit: 1 });
    const second = await sandbox.getNetworkLog({ limit: 1, ...(first.nextCursor === undefined ? {} : { before: first.nextCursor }) });
    await sandbox.kill();
    return { info, events: page.events, first: first.events[0], second: second.events[0], more: first.hasMore };
  });
  assert.deepEqual(seen.info.metadata, { stage: 'three' });
  assert.deepEqual(seen.info.network, { allowOut: ['93.184.216.34/32', 'api.example.com'], denyOut: [] });
  assert.ok(seen.events.length >= 3);
  assert.deepEqual([seen.events[0]?.kind, seen.events[0]?.verdict, seen.events[0]?.matchRule, seen.events[0]?.dstPort], ['connection', 'blocked', 'implicit-deny', 80]);
  assert.equal(seen.more, true);
  assert.notEqual(seen.first?.id, seen.second?.id);
});

test('the system templates are listed, found by name and by id, and have what they promise', async () => {
  const seen = await gateway.run(async ({ Sandbox, Template }) => {
    const templates = await Template.list({ namePrefix: 'superserve/' });
    const byName = await (await Template.connect('superserve/base')).getInfo();
    const byId = await (await Template.connect(byName.id)).getInfo();
    const outputs: Record<string, string> = {};
    for (const [name, command] of [
      ['superserve/base', 'python3 --version; node --version; npm --version; gcc --version | head -1; git --version; curl --version | head -1'],
      ['superserve/python-3.11', 'python3 --version; pip --version; python3 -c "import requests; print(requests.__name__)"; which nohup'],
      ['superserve/node-22', 'node --version; npm --version; pnpm --version; tsc --version'],
    ] as const) {
      const sandbox = await Sandbox.create({ name: 'template', fromTemplate: name });
      const { stdout, exitCode } = await sandbox.commands.run(`set -e; ${command}`, { timeoutMs: 60_000 });
      outputs[name] = `${exitCode} ${stdout}`;
      await sandbox.kill();
    }
    return { names: templates.map((each) => each.name).sort(), statuses: templates.map((each) => each.status), byName, byId, outputs };
  });
  assert.deepEqual(seen.names, ['superserve/base', 'superserve/claude-code', 'superserve/code-interpreter', 'superserve/node-22', 'superserve/python-3.11', 'superserve/python-ml']);
  // Those that are built on demand may have been, on this machine.
  assert.ok(seen.statuses.every((status) => status === 'ready' || status === 'pending'));
  assert.deepEqual(seen.byId, seen.byName);
  assert.deepEqual([seen.byName.vcpu, seen.byName.memoryMib, seen.byName.diskMib], [1, 1024, 4096]);
  assert.match(seen.outputs['superserve/base']!, /^0 Python 3\.\d+\.\d+\nv22\.\d+\.\d+\n10\..*\ngcc .*\ngit version.*\ncurl /s);
  assert.match(seen.outputs['superserve/python-3.11']!, /^0 Python 3\.11\.\d+\npip .*\nrequests\n\/usr\/bin\/nohup/s);
  assert.match(seen.outputs['superserve/node-22']!, /^0 v22\..*\n10\..*\n10\..*\nVersion /s);
});

test('a command that is lost with its sandbox is an error, never exit code 0', async () => {
  const seen = await gateway.run(async ({ Sandbox }) => {
    const failed = (work: Promise<unknown>): Promise<string> => work.then((result) => JSON.stringify(result), (error: Error) => `${error.name}: ${error.message}`);
    const sandbox = await Sandbox.create({ name: 'lost' });
    const session = await sandbox.commands.spawn('sleep 100');
    const waits = [failed(session.wait()), failed(sandbox.commands.run('sleep 100', { onStdout: () => {} })), failed(sandbox.commands.run('sleep 100'))];
    await sandbox.commands.run('until [ $(pgrep -c sleep) = 3 ]; do sleep 0.1; done');
    await sandbox.kill();
    return Promise.all(waits);
  });
  assert.match(seen[0]!, /^SandboxError: exec\/connect: connection closed before the command finished \(the sandbox has ended/);
  assert.match(seen[1]!, /^SandboxError: Command stream ended without a finished event/);
  assert.match(seen[2]!, /^NotFoundError: there is no sandbox/);
});

test('a sandbox that died by itself is shown as failed until it is deleted', async () => {
  const before = new Set(guestGroupsOf(server.dataDir));
  const made = await make(server, { name: 'dies' });
  const [group = ''] = guestGroupsOf(server.dataDir).filter((name) => !before.has(name));
  for (const pid of guestProcessesOf(server.dataDir, group)) killIfThere(pid);
  const seen = await eventually(async () => {
    const { json } = await control(server, 'GET', `/sandboxes/${made.id}`);
    return json.status === 'failed' && json;
  });
  assert.match(seen.failure_reason, /^(runtime_crashed|agent_lost)$/);
  assert.equal(seen.access_token, undefined);
  assert.deepEqual((await control(server, 'GET', '/sandboxes?status=failed')).json.map((each: any) => each.id), [made.id]);
  assert.ok((await control(server, 'GET', '/sandboxes')).json.some((each: any) => each.id === made.id));
  assert.equal((await control(server, 'POST', `/sandboxes/${made.id}/activate`)).status, 409);
  assert.equal((await control(server, 'POST', `/sandboxes/${made.id}/pause`)).status, 409);
  const inside = await gateway.run(async ({ Sandbox }, id: string) => Sandbox.connect(id).then(() => '', (error: Error) => `${error.name}: ${error.message}`), made.id);
  assert.match(inside, /^ConflictError: the sandbox has failed \((runtime_crashed|agent_lost)\) and cannot be activated; delete it/);
  assert.equal((await control(server, 'DELETE', `/sandboxes/${made.id}`)).status, 204);
  assert.equal((await control(server, 'GET', `/sandboxes/${made.id}`)).status, 404);
  assert.equal((await control(server, 'DELETE', `/sandboxes/${made.id}`)).status, 404);
});

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code !== 'ESRCH') throw reason; // went with another one
  }
}
