import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import Database from 'better-sqlite3';
import { serverOfThisFile } from '../harness/server.ts';
import { control, exec, gatewayOfThisFile, inside, make, preview, SocketLog } from '../harness/superserve.ts';
import { eventually } from '../harness/wait.ts';

// Pause, resume, activate, their races, automatic deletion and saved snapshots. `timeout_seconds` is the hard cap here.

const server = serverOfThisFile({ PADDOCK_SUPERSERVE_TEAM_RATE: '0' });
const gateway = gatewayOfThisFile(server);
const post = (path: string, json?: object, headers: Readonly<Record<string, string>> = {}) => control(server, 'POST', path, { ...(json === undefined ? {} : { json }), headers });
const status = async (id: string): Promise<string | number> => {
  const answer = await control(server, 'GET', `/sandboxes/${id}`);
  return answer.status === 200 ? answer.json.status : answer.status;
};

test('the SDK pauses and resumes, keeps memory, processes and files, and wakes a paused sandbox by using it', async () => {
  const seen = await gateway.run(async ({ Sandbox }) => {
    const sandbox = await Sandbox.create({ name: 'sleeper', envVars: { KEPT: 'yes' } });
    await sandbox.files.write('/home/user/token', 'disk');
    await sandbox.commands.run('(cd /tmp; TOKEN=memory nohup python3 -c "import time\nwhile True: time.sleep(1)" >/dev/null 2>&1 &)');
    await sandbox.pause();
    const paused = (await sandbox.getInfo()).status;
    await sandbox.resume();
    const after = await sandbox.commands.run('cat /home/user/token; echo " $KEPT"; pgrep -fc "time.slee[p]"');
    const fresh = Math.abs(Date.now() / 1000 - Number((await sandbox.commands.run('date +%s')).stdout));
    await sandbox.pause();
    const woken = await sandbox.commands.run('echo awake');
    await sandbox.pause();
    await sandbox.files.write('/tmp/woken', 'by a file');
    await sandbox.pause();
    const read = await sandbox.files.readText('/tmp/woken');
    await sandbox.pause();
    const session = await sandbox.commands.spawn('echo spawned');
    const spawned = await session.wait();
    await sandbox.pause();
    const connected = await Sandbox.connect(sandbox.id);
    const status = connected.status;
    await sandbox.kill();
    return { paused, after, fresh, woken, read, spawned, status };
  });
  assert.equal(seen.paused, 'paused');
  assert.deepEqual(seen.after, { stdout: 'disk yes\n1\n', stderr: '', exitCode: 0 });
  assert.ok(seen.fresh < 5);
  assert.deepEqual([seen.woken.stdout, seen.read, seen.spawned.stdout, seen.status], ['awake\n', 'by a file', 'spawned\n', 'active']);
});

test('pause is exactly 204, a wrong state is 409, and a paused sandbox tells every door how to wake it', async () => {
  const box = await make(server, { auto_delete_seconds: 600 });
  const { id } = box;
  const log = new SocketLog(server, box, '/exec/connect', 'superserve.exec.v1');
  await log.opened;
  log.send({ command: 'echo on; sleep 1000' });
  await eventually(() => log.channel(1) === 'on\n');
  const paused = await post(`/sandboxes/${id}/pause`);
  assert.deepEqual([paused.status, paused.text], [204, '']);
  await log.closed;
  const { json } = await control(server, 'GET', `/sandboxes/${id}`);
  assert.equal(json.status, 'paused');
  assert.match(json.snapshot_id, /^[0-9a-f-]{36}$/);
  assert.ok(Math.abs(Date.parse(json.auto_delete_at) - Date.now() - 600_000) < 10_000);
  for (const path of ['pause']) assert.deepEqual((await post(`/sandboxes/${id}/${path}`)).json.error.code, 'conflict');
  for (const [method, path] of [['POST', '/exec'], ['POST', '/exec/stream'], ['GET', '/files?path=/etc/hostname'], ['POST', '/files?path=/tmp/x']] as const) {
    const answer = await inside(server, box, method, path, path.startsWith('/exec') ? { json: { command: 'true' } } : method === 'POST' ? { body: 'x' } : {});
    assert.deepEqual([answer.status, answer.json.error.code], [503, 'sandbox_unavailable'], path);
    assert.ok(Number(answer.headers['retry-after']) >= 1);
    assert.match(answer.json.error.message, new RegExp(`the sandbox is paused; POST /sandboxes/${id}/activate`));
  }
  const socket: any = await new SocketLog(server, box, '/exec/connect', 'superserve.exec.v1').opened.then(() => null, (reason: Error) => reason);
  assert.equal(socket.status, 503);
  const seen = await preview(server, id, 3000, '/');
  assert.deepEqual([seen.status, seen.json.error.message], [503, 'sandbox is paused']);
  assert.equal((await control(server, 'PATCH', `/sandboxes/${id}`, { json: { network: {} } })).status, 409);
  assert.equal((await control(server, 'PATCH', `/sandboxes/${id}`, { json: { metadata: { changed: 'asleep' } } })).status, 204);
  assert.deepEqual((await control(server, 'GET', '/sandboxes?status=paused')).json.map((each: any) => [each.id, each.metadata]), [[id, { changed: 'asleep' }]]);

  const resumed = await post(`/sandboxes/${id}/resume`, {});
  assert.deepEqual([resumed.status, resumed.json.id, resumed.json.status], [200, id, 'active']);
  assert.equal((await exec(server, { id, token: resumed.json.access_token }, 'echo back')).stdout, 'back\n');
  assert.equal((await control(server, 'GET', `/sandboxes/${id}`)).json.auto_delete_at, undefined);
  assert.equal((await post(`/sandboxes/${id}/resume`)).status, 409);
  assert.equal((await post(`/sandboxes/${id}/activate`, {})).status, 200);
  assert.equal((await post(`/sandboxes/${id}/activate`, { x: 1 })).status, 400);
  await control(server, 'DELETE', `/sandboxes/${id}`);
});

test('a listing of a directory wakes a paused sandbox, and Prefer: respond-async does not wait for its pause', async () => {
  const { id } = await make(server);
  const asked = await post(`/sandboxes/${id}/pause`, {}, { prefer: 'respond-async' });
  assert.deepEqual([asked.status, asked.json, asked.headers['retry-after']], [202, { status: 'pausing' }, '1']);
  await eventually(async () => (await status(id)) === 'paused');
  assert.equal((await control(server, 'GET', `/sandboxes/${id}/files?path=/etc`)).status, 200);
  assert.equal(await status(id), 'active');
  await control(server, 'DELETE', `/sandboxes/${id}`);
});

test('of two pauses or resumes one wins, every activate does, and a delete ends it all', async () => {
  const { id } = await make(server);
  const pauses = await Promise.all([post(`/sandboxes/${id}/pause`), post(`/sandboxes/${id}/pause`)]);
  assert.deepEqual(pauses.map((each) => each.status).sort(), [204, 409]);
  const wakes = await Promise.all([post(`/sandboxes/${id}/resume`), post(`/sandboxes/${id}/resume`), post(`/sandboxes/${id}/activate`), post(`/sandboxes/${id}/activate`)]);
  assert.deepEqual(wakes.slice(2).map((each) => each.status), [200, 200]);
  assert.ok(wakes.slice(0, 2).filter((each) => each.status === 200).length <= 1);
  const ends = await Promise.all([post(`/sandboxes/${id}/pause`), control(server, 'DELETE', `/sandboxes/${id}`), control(server, 'DELETE', `/sandboxes/${id}`)]);
  assert.ok([204, 409, 410, 404].includes(ends[0].status), `${ends[0].status} ${ends[0].text}`);
  for (const each of ends.slice(1)) assert.ok([204, 404].includes(each.status), `${each.status} ${each.text}`);
  await eventually(async () => (await status(id)) === 404);
});

test('a command cut by a pause (contract 1.6): not the 503 on which clients would wake the sandbox and run it a second time', async () => {
  const box = await make(server);
  const seen = await gateway.run(async ({ Sandbox }, { id }) => {
    const sandbox = await Sandbox.connect(id);
    const running = sandbox.commands.run('echo ran >> /root/runs; sleep 2; echo over >> /root/runs').then(() => 'no error', (error: { name: string }) => error.name);
    await sandbox.commands.run('until test -e /root/runs; do sleep 0.05; done');
    await sandbox.pause();
    return { error: await running, status: (await sandbox.getInfo()).status };
  }, { id: box.id });
  assert.deepEqual(seen, { error: 'ConflictError', status: 'paused' });
  const { json } = await post(`/sandboxes/${box.id}/activate`);
  const woken = { id: box.id, token: json.access_token };
  await eventually(async () => (await exec(server, woken, 'cat /root/runs')).stdout === 'ran\nover\n', { withinMs: 10_000 });
  await control(server, 'DELETE', `/sandboxes/${box.id}`);
});

test('activate from each state (contract 4.6): running stays, pausing and paused are woken, failed is 409, deleted is 404', async () => {
  const box = await make(server);
  const activate = () => post(`/sandboxes/${box.id}/activate`);
  const again = await activate();
  assert.deepEqual([again.status, { ...again.json, access_token: '' }], [200, { ...box.json, access_token: '' }]);
  assert.equal((await post(`/sandboxes/${box.id}/pause`, {}, { prefer: 'respond-async' })).status, 202);
  const woken = await activate();
  assert.deepEqual([woken.status, woken.json.status], [200, 'active']);
  assert.equal((await post(`/sandboxes/${box.id}/pause`)).status, 204);
  assert.equal((await activate()).json.status, 'active');

  await exec(server, box, 'kill -9 1').catch(() => {});
  await eventually(async () => (await status(box.id)) === 'failed');
  for (const call of ['activate', 'resume', 'pause']) {
    const { status, json } = await post(`/sandboxes/${box.id}/${call}`);
    assert.deepEqual([status, json.error.code], [409, 'conflict'], call);
  }
  // Nothing can wake it, so no door says that something could.
  assert.equal((await inside(server, box, 'POST', '/exec', { json: { command: 'true' } })).status, 410);
  const socket: any = await new SocketLog(server, box, '/exec/connect', 'superserve.exec.v1').opened.then(() => null, (reason: Error) => reason);
  assert.equal(socket.status, 410);
  assert.equal((await preview(server, box.id, 3000, '/')).status, 404);
  assert.equal((await control(server, 'DELETE', `/sandboxes/${box.id}`)).status, 204);
  assert.equal((await activate()).status, 404);
  assert.equal((await inside(server, box, 'POST', '/exec', { json: { command: 'true' } })).status, 404);
});

test('delete while pausing (contract 9.2): it is gone, and the pause that ends afterwards does not bring it back', async () => {
  const { id } = await make(server);
  assert.equal((await post(`/sandboxes/${id}/pause`, {}, { prefer: 'respond-async' })).status, 202);
  assert.equal((await control(server, 'DELETE', `/sandboxes/${id}`)).status, 204);
  for (let i = 0; i < 10; i++) {
    assert.equal(await status(id), 404);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.equal((await control(server, 'GET', '/sandboxes?status=paused')).json.some((each: any) => each.id === id), false);
});

test('a paused sandbox whose files are gone (contract 2.1): 503 host_state_missing, whoever would wake it', async () => {
  const { id } = await make(server);
  await post(`/sandboxes/${id}/pause`);
  const { snapshot_id: snapshot } = (await control(server, 'GET', `/sandboxes/${id}`)).json;
  const database = new Database(join(server.dataDir, 'paddock.db'));
  database.pragma('foreign_keys = off');
  assert.equal(database.prepare('delete from snapshots where id = ?').run(snapshot).changes, 1);
  database.close();
  for (const [method, path] of [['POST', 'activate'], ['POST', 'resume'], ['GET', 'files?path=/etc']] as const) {
    const { status, json } = await control(server, method, `/sandboxes/${id}/${path}`);
    assert.deepEqual([status, json.error.code], [503, 'host_state_missing'], path);
  }
  assert.equal((await control(server, 'DELETE', `/sandboxes/${id}`)).status, 204);
});

test('a private preview while paused (contract 12): 401 for strangers, 503 for those with a token, and nothing wakes it', async () => {
  const { id } = await make(server, { preview_access: 'private' });
  await post(`/sandboxes/${id}/preview-ports`, { port: 8080 });
  const { token } = (await post(`/sandboxes/${id}/preview-ports/8080/token`)).json;
  await post(`/sandboxes/${id}/pause`);
  assert.equal((await preview(server, id, 8080, '/')).status, 401);
  const known = await preview(server, id, 8080, '/', { headers: { 'X-Superserve-Preview-Token': token } });
  assert.deepEqual([known.status, known.json.error.message, known.headers['retry-after']], [503, 'sandbox is paused', '2']);
  assert.equal(await status(id), 'paused');
  await control(server, 'DELETE', `/sandboxes/${id}`);
});

test('auto_delete_seconds 0 deletes at the moment of pausing, and a second later with 1', async () => {
  for (const seconds of [0, 1]) {
    const { id } = await make(server, { auto_delete_seconds: seconds });
    assert.equal((await post(`/sandboxes/${id}/pause`)).status, 204);
    await eventually(async () => (await status(id)) === 404, { withinMs: 15_000 });
  }
});

test('under the hard cap a paused sandbox is destroyed too', async () => {
  const { id } = await make(server, { timeout_seconds: 6 });
  assert.equal((await post(`/sandboxes/${id}/pause`)).status, 204);
  assert.equal(await status(id), 'paused');
  await eventually(async () => (await status(id)) === 404, { withinMs: 20_000 });
});

test('a snapshot is saved, replayed by its key, listed, renamed, made into sandboxes and deleted', async () => {
  const box = await make(server, { name: 'source', env_vars: { A: 'source', B: 'source' }, network: { deny_out: ['198.51.100.0/24'] }, timeout_seconds: 3600 });
  await exec(server, box, 'echo kept > /root/kept; (TOKEN=x nohup sleep 7777 >/dev/null 2>&1 &)');
  const saved = await post(`/sandboxes/${box.id}/snapshot`, { kind: 'mem+fs', name: 'first', idempotency_key: 'k-1' });
  assert.equal(saved.status, 201);
  const { id: sid, created_at: created, ready_at: ready, size_bytes: size, template_id: template, ...shown } = saved.json;
  assert.deepEqual(shown, { sandbox_id: box.id, kind: 'mem+fs', status: 'ready', name: 'first', resources: { vcpu_count: 1, memory_mib: 1024, disk_mib: 4096 } });
  assert.ok(size > 0 && created <= ready && template.length === 36);
  const replayed = await post(`/sandboxes/${box.id}/snapshot`, { name: 'first', idempotency_key: 'k-1' });
  assert.deepEqual([replayed.status, replayed.json.id], [200, sid]);
  assert.deepEqual((await control(server, 'GET', `/snapshots/${sid}`)).json, saved.json);
  assert.equal((await control(server, 'PATCH', `/snapshots/${sid}`, { json: { name: 'renamed' } })).json.name, 'renamed');
  assert.deepEqual((await control(server, 'GET', `/sandboxes/${box.id}/snapshots?limit=1`)).json.map((each: any) => each.name), ['renamed']);
  for (const [path, json] of [[`/sandboxes/${box.id}/snapshot`, { kind: 'fs' }], [`/sandboxes/${box.id}/snapshot`, { name: '' }], [`/sandboxes/${box.id}/snapshot`, { idempotency_key: 'x'.repeat(256) }]] as const) assert.equal((await post(path, json)).status, 400, JSON.stringify(json));
  assert.equal((await control(server, 'GET', '/snapshots/x')).status, 400);
  assert.equal((await control(server, 'GET', '/snapshots/0f8fad5b-d9cb-469f-a165-70867728950e')).status, 404);

  await control(server, 'DELETE', `/sandboxes/${box.id}`);
  const copy = await make(server, { name: 'copy', from_snapshot: sid, env_vars: { B: 'copy' } });
  assert.notEqual(copy.id, box.id);
  assert.deepEqual([copy.json.source_snapshot_id, copy.json.timeout_seconds, copy.json.network], [sid, 3600, { allow_out: [], deny_out: ['198.51.100.0/24'] }]);
  assert.deepEqual(await exec(server, copy, 'cat /root/kept; echo $A $B; pgrep -fc "sleep 777[7]"; hostname'), { stdout: `kept\nsource copy\n1\nsandbox-${copy.id.slice(0, 8)}\n`, stderr: '', exit_code: 0 });
  const other = await make(server, { name: 'other', from_snapshot: sid, timeout_seconds: 60, network: {} });
  assert.deepEqual([other.json.timeout_seconds, other.json.network], [60, undefined]);
  for (const { id } of [copy, other]) await control(server, 'DELETE', `/sandboxes/${id}`);
  assert.equal((await control(server, 'DELETE', `/snapshots/${sid}`)).status, 204);
  assert.equal((await control(server, 'DELETE', `/snapshots/${sid}`)).status, 404);
  assert.deepEqual((await post('/sandboxes', { name: 'x', from_snapshot: sid })).json.error.code, 'snapshot_not_found');
});

test('published ports survive a pause', async () => {
  const box = await make(server, { preview_access: 'public' });
  await exec(server, box, 'cd /srv && python3 -m http.server 8080 >/dev/null 2>&1 &');
  await post(`/sandboxes/${box.id}/preview-ports`, { port: 8080 });
  await eventually(async () => (await preview(server, box.id, 8080, '/')).status === 200, { withinMs: 20_000 });
  assert.equal((await post(`/sandboxes/${box.id}/pause`)).status, 204);
  assert.equal((await post(`/sandboxes/${box.id}/activate`)).status, 200);
  await eventually(async () => (await preview(server, box.id, 8080, '/')).status === 200, { withinMs: 20_000 });
  await control(server, 'DELETE', `/sandboxes/${box.id}`);
});
