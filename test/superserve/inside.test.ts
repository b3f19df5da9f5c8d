import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { openStore } from '../../src/store/store.ts';
import { AccessTokens } from '../../src/wire/superserve/access-token.ts';
import type { SandboxId } from '../../src/core/ids.ts';
import { call, open, type Answer } from '../harness/http.ts';
import { serverOfThisFile, prepare } from '../harness/server.ts';
import { control, exec, inside, make, type Made } from '../harness/superserve.ts';
import { eventually } from '../harness/wait.ts';

// Commands and files over raw HTTP: what the SDK never sends, every edge, and who may come in.

const page = 'https://console.example';
const server = serverOfThisFile({ PADDOCK_SUPERSERVE_TEAM_RATE: '0', PADDOCK_SUPERSERVE_ORIGINS: page });
let box: Made;
prepare(async () => {
  box = await make(server, { name: 'inside', env_vars: { LAYER: 'create', A: 'a' } });
});
const here = (method: string, path: string, options: Parameters<typeof inside>[4] = {}): Promise<Answer> => inside(server, box, method, path, options);

/** The data lines of a stream. */
function eventsOf(text: string): any[] {
  return [...text.matchAll(/^data: (.*)$/gm)].map(([, json = '']) => JSON.parse(json));
}

test('a command runs as root, from root\'s home, by /bin/sh, in an environment of layers', async () => {
  assert.deepEqual(await exec(server, box, 'id -un; pwd; hostname; echo "$0 $LAYER $A $HOME"; test -d /home/user && echo there'), {
    stdout: `root\n/root\nsandbox-${box.id.slice(0, 8)}\n/bin/sh create a /root\nthere\n`,
    stderr: '',
    exit_code: 0,
  });
  assert.equal((await exec(server, box, { command: 'echo $LAYER $A; pwd', env: { LAYER: 'exec' }, working_dir: '/tmp' })).stdout, 'exec a\n/tmp\n');
  assert.deepEqual(await exec(server, box, { command: 'printf', args: ['%s|', 'a b', '$HOME', '*'] }), { stdout: 'a b|$HOME|*|', stderr: '', exit_code: 0 });
  assert.equal((await exec(server, box, 'kill -TERM $$')).exit_code, 143);
});

test('a command that runs out of time is ended with all it started: 124, and what it had written', async () => {
  const started = Date.now();
  assert.deepEqual(await exec(server, box, { command: 'echo so far; sleep 4242 & sleep 4242', timeout_s: 1 }), { stdout: 'so far\n', stderr: '', exit_code: 124 });
  assert.ok(Date.now() - started < 4000);
  await eventually(async () => (await exec(server, box, 'pgrep -c "[s]leep" || true')).stdout.trim() === '0');
});

test('8 MiB of output is the most, the rest is said to be missing, and the command goes on to its end', async () => {
  const whole = await exec(server, box, 'head -c 8388608 /dev/zero | tr "\\0" x; exit 3');
  assert.deepEqual([whole.stdout.length, whole.stderr, whole.exit_code, whole.truncated], [8_388_608, '', 3, undefined]);
  const cut = await exec(server, box, 'head -c 8388609 /dev/zero | tr "\\0" x; echo late >&2; touch /tmp/went-on; exit 3');
  assert.deepEqual([cut.stdout.length, cut.exit_code, cut.truncated], [8_388_608, 3, true]);
  assert.match(cut.stderr, /output truncated/);
  assert.equal((await exec(server, box, 'test -e /tmp/went-on')).exit_code, 0);
});

test('requests that make no sense are 400, commands that cannot be started are told why', async () => {
  for (const body of ['', '{', '[]', '{"command":""}', '{"command":1}', '{"command":"x","user":"root"}', '{"command":"x","timeout_s":-1}', '{"command":"x","env":{"A":1}}', '{"args":["x"]}']) {
    for (const path of ['/exec', '/exec/stream']) {
      const { status, json } = await here('POST', path, { body });
      assert.deepEqual([status, json.error.code], [400, 'bad_request'], `${path} ${body}`);
    }
  }
  const nowhere = await here('POST', '/exec', { json: { command: 'true', working_dir: '/not/there' } });
  assert.deepEqual([nowhere.status, nowhere.json.error.code], [400, 'bad_request']);
  const nothing = await here('POST', '/exec', { json: { command: 'no-such-program', args: [] } });
  assert.deepEqual([nothing.status, nothing.json.error.code], [422, 'unprocessable']);
  assert.match(nothing.json.error.message, /no program "no-such-program"/);
});

test('a stream has its events in order, ends with its exit, and says why it could not start', async () => {
  const { status, headers, text } = await here('POST', '/exec/stream', { json: { command: 'echo out; sleep 0.1; echo err >&2; sleep 0.1; exit 3' } });
  assert.deepEqual([status, headers['content-type'], headers['cache-control'], headers['x-accel-buffering']], [200, 'text/event-stream', 'no-cache', 'no']);
  assert.deepEqual(eventsOf(text).map(({ timestamp, ...event }) => (assert.match(timestamp, /^\d{4}-.*Z$/), event)), [{ stdout: 'out\n' }, { stderr: 'err\n' }, { exit_code: 3, finished: true }]);
  assert.ok(text.endsWith('\n\n'));
  const late = eventsOf((await here('POST', '/exec/stream', { json: { command: 'echo a; sleep 60', timeout_s: 1 } })).text);
  assert.deepEqual([late[0].stdout, late.at(-1).exit_code, late.at(-1).finished], ['a\n', 124, true]);
  const [failed] = eventsOf((await here('POST', '/exec/stream', { json: { command: 'true', working_dir: '/not/there' } })).text);
  assert.deepEqual([failed.code, failed.finished], ['bad_request', true]);
  const [missing] = eventsOf((await here('POST', '/exec/stream', { json: { command: 'no-such-program', args: [] } })).text);
  assert.equal(missing.code, 'exec_failed');
});

test('a client that leaves a stream ends its command', async () => {
  const abort = new AbortController();
  const message = await open(server.url, 'POST', '/exec/stream', { json: { command: 'echo on; exec sleep 4343' }, headers: { 'x-superserve-sandbox-id': box.id, 'x-access-token': box.token }, signal: abort.signal });
  await new Promise((resolve) => message.once('data', resolve));
  message.on('error', () => {});
  abort.abort();
  await eventually(async () => (await exec(server, box, 'pgrep -f "slee[p] 4343" | wc -l')).stdout.trim() === '0');
});

test('files are written with their parents, replaced whole, and read back byte for byte', async () => {
  const bytes = Buffer.alloc(3_000_000, 'xyz');
  const written = await here('POST', '/files?path=%2Fhome%2Fuser%2Fa%2F%C3%BC%20b.bin', { body: bytes, headers: { 'content-type': 'application/octet-stream' } });
  assert.deepEqual([written.status, written.json], [200, { path: '/home/user/a/ü b.bin', size: bytes.length }]);
  const read = await here('GET', '/files?path=%2Fhome%2Fuser%2Fa%2F%C3%BC%20b.bin');
  assert.deepEqual([read.headers['content-type'], read.headers['content-length'], read.headers['content-disposition']], ['application/octet-stream', String(bytes.length), "attachment; filename=\"_ b.bin\"; filename*=UTF-8''%C3%BC%20b.bin"]);
  assert.ok(read.bytes.equals(bytes));
  assert.equal((await here('POST', '/files?path=/home/user/a/%C3%BC%20b.bin', { body: '' })).json.size, 0);
  assert.equal((await exec(server, box, 'stat -c "%U %s" "/home/user/a/ü b.bin"')).stdout, 'root 0\n');
  const proc = await here('GET', '/files?path=/proc/version');
  assert.match(proc.text, /Linux/);
});

test('bad paths are 400, missing files 404, and what belongs to the sandbox is not written', async () => {
  for (const query of ['', '?path=', '?path=a', '?path=%2Fa%2F..%2Fb', '?path=%2Fa%00', '?path=/etc', '?path=/etc&format=tar']) {
    const { status, json } = await here('GET', `/files${query}`);
    assert.deepEqual([status, json.error.code], [400, 'bad_request'], query);
  }
  assert.deepEqual([(await here('GET', '/files?path=/none')).status, (await here('GET', '/files?path=/none&format=zip')).status], [404, 404]);
  for (const path of ['/', '/proc/x', '/sys/x', '/dev/x', '/sbin/init', '/.paddock/agent', '/etc']) {
    const { status, json } = await here('POST', `/files?path=${path}`, { body: 'x' });
    assert.deepEqual([status, json.error.code], [400, 'bad_request'], path);
  }
  const large = await here('POST', '/files?path=/tmp/x', { body: 'x', headers: { 'content-length': String(4 * 1024 ** 3 + 1) } }).catch((error: Error) => error);
  assert.ok(large instanceof Error || large.status === 413);
});

test('ranges of files (contract 5.4): one part is 206, one that lies outside 416 with the size, anything else the whole file', async () => {
  await here('POST', '/files?path=/srv/ranged', { body: '0123456789' });
  const part = (range: string, more: Readonly<Record<string, string>> = {}) => here('GET', '/files?path=/srv/ranged', { headers: { range, ...more } });
  for (const [range, text, where] of [['bytes=2-4', '234', '2-4/10'], ['bytes=7-', '789', '7-9/10'], ['bytes=-2', '89', '8-9/10'], ['bytes=8-99', '89', '8-9/10'], ['bytes=0-0', '0', '0-0/10']] as const) {
    const answer = await part(range);
    assert.deepEqual([answer.status, answer.text, answer.headers['content-range'], answer.headers['content-length'], answer.headers['content-type']], [206, text, `bytes ${where}`, String(text.length), 'application/octet-stream'], range);
  }
  for (const range of ['bytes=10-', 'bytes=99-100', 'bytes=-0']) {
    const { status, headers, json } = await part(range);
    assert.deepEqual([status, headers['content-range'], json.error], [416, 'bytes */10', { code: 'range_not_satisfiable', message: 'the file has 10 bytes' }], range);
  }
  for (const range of ['bytes=0-1,3-4', 'bytes=4-2', 'lines=1-2', 'bytes=a-b', 'bytes=-']) {
    const { status, text, headers } = await part(range);
    assert.deepEqual([status, text, headers['content-range'], headers['accept-ranges']], [200, '0123456789', undefined, 'bytes'], range);
  }
  assert.equal((await part('bytes=0-1', { 'if-range': '"x"' })).status, 200);
  // Larger than one read of anything.
  await exec(server, box, 'head -c 5000000 /dev/urandom > /srv/large');
  const hash = (await exec(server, box, 'tail -c +1000001 /srv/large | head -c 3000000 | sha256sum')).stdout.slice(0, 64);
  const middle = await here('GET', '/files?path=/srv/large', { headers: { range: 'bytes=1000000-3999999' } });
  assert.equal(createHash('sha256').update(middle.bytes).digest('hex'), hash);
});

test('files of a mount that fails (contract 5.4): 500 sandbox_filesystem_error with the path, reading and writing', async () => {
  await exec(server, box, 'mkdir -p /srv/fixed && mount -t tmpfs -o ro none /srv/fixed');
  const written = await here('POST', '/files?path=/srv/fixed/x', { body: 'x' });
  assert.deepEqual([written.status, written.json.error.code, written.json.error.path], [500, 'sandbox_filesystem_error', '/srv/fixed/x']);
  // Its beginning is no address, so the kernel answers with an input/output error.
  const read = await here('GET', '/files?path=/proc/self/mem');
  assert.deepEqual([read.status, read.json.error.code, read.json.error.path], [500, 'sandbox_filesystem_error', '/proc/self/mem']);
});

test('caps of archives (contract 5.4): above 2 GiB of content is 413 before the first byte', async () => {
  await exec(server, box, 'mkdir -p /srv/huge && truncate -s 1500M /srv/huge/a /srv/huge/b');
  const { status, json } = await here('GET', '/files?path=/srv/huge&format=zip');
  assert.deepEqual([status, json.error.code], [413, 'too_large']);
  assert.match(json.error.message, /^\/srv\/huge holds 3145728000 bytes; an archive has at most 2147483648/);
  await exec(server, box, 'rm -r /srv/huge');
});

test('a broken upload leaves the file as it was', async () => {
  await here('POST', '/files?path=/tmp/kept', { body: 'before' });
  await inside(server, box, 'POST', '/files?path=/tmp/kept', { body: 'part', headers: { 'content-length': '1000' }, timeoutMs: 500 }).catch(() => {});
  assert.equal((await here('GET', '/files?path=/tmp/kept')).text, 'before');
  assert.equal((await exec(server, box, 'ls /tmp | grep -c kept')).stdout, '1\n');
});

test('a directory comes as a zip below its own name: modes, empty directories, no symbolic links', async () => {
  await exec(server, box, 'mkdir -p /srv/tree/sub/empty && cd /srv/tree && echo one > a.txt && echo two > sub/ü.sh && chmod 755 sub/ü.sh && ln -s /etc/passwd link && ln -s sub linked && mkfifo pipe && head -c 1000000 /dev/urandom > sub/random');
  const hash = (await exec(server, box, 'sha256sum < /srv/tree/sub/random')).stdout.slice(0, 64);
  const { status, headers, bytes } = await here('GET', '/files?path=/srv/tree/&format=zip');
  assert.deepEqual([status, headers['content-type'], headers['content-disposition']], [200, 'application/zip', 'attachment; filename="tree.zip"']);
  const directory = mkdtempSync(join(tmpdir(), 'paddock-zip-'));
  try {
    writeFileSync(join(directory, 'tree.zip'), bytes);
    const script = "import sys,zipfile,json; z=zipfile.ZipFile(sys.argv[1]); z.testzip(); print(json.dumps([[i.filename, i.external_attr >> 16 & 0o777] for i in z.infolist()])); z.extractall(sys.argv[2])";
    const names = JSON.parse(execFileSync('python3', ['-c', script, join(directory, 'tree.zip'), directory]).toString()) as [string, number][];
    assert.deepEqual(names.map(([name]) => name).sort(), ['tree/', 'tree/a.txt', 'tree/sub/', 'tree/sub/empty/', 'tree/sub/random', 'tree/sub/ü.sh']);
    assert.equal(names.find(([name]) => name === 'tree/sub/ü.sh')?.[1], 0o755);
    assert.equal(createHash('sha256').update(readFileSync(join(directory, 'tree/sub/random'))).digest('hex'), hash);
    assert.ok(existsSync(join(directory, 'tree/sub/empty')));
  } finally {
    rmSync(directory, { recursive: true });
  }
  assert.equal((await here('GET', '/files?path=/srv/tree/a.txt&format=zip')).text, 'one\n');
});

test('the whole file system comes as a zip without the kernel\'s trees', async () => {
  const started = Date.now();
  const message = await open(server.url, 'GET', '/files?path=/&format=zip', { headers: { 'x-superserve-sandbox-id': box.id, 'x-access-token': box.token }, timeoutMs: 150_000 });
  assert.equal(message.statusCode, 200);
  let tail = Buffer.alloc(0);
  let bytes = 0;
  for await (const chunk of message as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    tail = Buffer.concat([tail, chunk]).subarray(-8_000_000);
    // The first part is enough here: all of it takes its time.
    if (Date.now() - started > 5000) break;
  }
  message.destroy();
  assert.ok(bytes > 1_000_000);
});

test('a token opens one sandbox for an hour or two, in header and routing by every way', async () => {
  const other = await make(server);
  const token = { 'x-access-token': box.token };
  for (const [what, path, headers] of [
    ['shared host', '/exec', { host: 'sandbox.superserve.ai', 'x-superserve-sandbox-id': box.id }],
    ['region in the id', '/exec', { host: 'usw-sandbox.superserve.ai:443', 'x-superserve-sandbox-id': `sb-usw-${box.id}` }],
    ['name', '/exec', { host: `boxd-${box.id}.sandbox.superserve.ai` }],
    ['name on the own domain', '/exec', { host: `BOXD-${box.id}.sandbox.localhost:7070` }],
    ['own domain', '/exec', { host: 'sandbox.localhost', 'x-superserve-sandbox-id': box.id }],
    ['control port', '/exec', { 'x-superserve-sandbox-id': box.id }],
    ['control port below the prefix', '/superserve/exec', { 'x-superserve-sandbox-id': box.id }],
  ] as const) {
    const { status, json } = await call(server.url, 'POST', path, { json: { command: 'echo here' }, headers: { ...token, ...headers } });
    assert.deepEqual([status, json.stdout], [200, 'here\n'], what);
  }
  const store = await openStore({ database: join(server.dataDir, 'paddock.db'), masterKey: join(server.dataDir, 'master.key') });
  const at = (hours: number): string => new AccessTokens(store.deriveKey('superserve-access-tokens'), { now: () => Date.now() - hours * 3_600_000 }).issue(box.id as SandboxId);
  await store.close();
  assert.equal((await here('POST', '/exec', { json: { command: 'true' }, headers: { 'x-access-token': at(1) } })).status, 200);
  for (const [what, headers] of [['none', { 'x-access-token': '' }], ['expired', { 'x-access-token': at(2) }], ['of another sandbox', { 'x-access-token': other.token }], ['nonsense', { 'x-access-token': 'x' }], ['the API key', { 'x-access-token': server.apiKey }]] as const) {
    const { status, json } = await here('POST', '/exec', { json: { command: 'true' }, headers });
    assert.deepEqual([status, json.error.code], [401, 'auth_failed'], what);
  }
  for (const [what, headers] of [['an unknown id', { 'x-superserve-sandbox-id': 'x' }], ['no id on the shared host', { host: 'sandbox.superserve.ai', 'x-superserve-sandbox-id': '' }]] as const) {
    const { status, json } = await here('POST', '/exec', { json: { command: 'true' }, headers });
    assert.deepEqual([status, json.error.code], [404, 'sandbox_route_stale'], what);
  }
  assert.equal((await here('POST', '/unknown', { headers: { host: 'sandbox.superserve.ai' } })).status, 404);
  await control(server, 'DELETE', `/sandboxes/${other.id}`);
  const gone = await inside(server, other, 'POST', '/exec', { json: { command: 'true' } });
  assert.deepEqual([gone.status, gone.json.error.code], [404, 'sandbox_route_stale']);
});

test('pages of configured origins may use it, and others may not', async () => {
  const headers = { host: `boxd-${box.id}.sandbox.superserve.ai`, origin: page, 'access-control-request-method': 'POST', 'access-control-request-headers': 'x-access-token' };
  const asked = await call(server.url, 'OPTIONS', '/exec', { headers });
  assert.deepEqual([asked.status, asked.headers['access-control-allow-origin'], asked.headers['access-control-allow-methods']], [204, page, 'GET, POST, OPTIONS']);
  assert.match(String(asked.headers['access-control-allow-headers']), /X-Access-Token, Content-Type/);
  assert.equal((await here('GET', '/files?path=/etc/hostname', { headers: { origin: page } })).headers['access-control-allow-origin'], page);
  // A refusal must be readable too, or the page cannot ask for another token.
  const refused = await here('GET', '/files?path=/x', { headers: { origin: page, 'x-access-token': 'x' } });
  assert.deepEqual([refused.status, refused.headers['access-control-allow-origin']], [401, page]);
  const foreign = await call(server.url, 'OPTIONS', '/exec', { headers: { ...headers, origin: 'https://evil.example' } });
  assert.deepEqual([foreign.headers['access-control-allow-origin'], foreign.headers['vary']], [undefined, 'Origin']);
});

test('one directory is listed through the control plane', async () => {
  await exec(server, box, 'mkdir -p /srv/list/d && echo x > /srv/list/f');
  const { json } = await control(server, 'GET', `/sandboxes/${box.id}/files?path=/srv/list`);
  assert.deepEqual(json.entries.map(({ modified_unix: at, ...entry }: any) => (assert.ok(Math.abs(at - Date.now() / 1000) < 60), { ...entry, size: entry.is_dir ? 0 : entry.size })), [{ name: 'd', is_dir: true, size: 0 }, { name: 'f', is_dir: false, size: 2 }]);
  assert.ok((await control(server, 'GET', `/sandboxes/${box.id}/files`)).json.entries.some((entry: any) => entry.name === 'etc'));
  const missing = await control(server, 'GET', `/sandboxes/${box.id}/files?path=/none`);
  assert.deepEqual([missing.status, missing.json.error], [404, { code: 'not_found', message: 'folder not found' }]);
  assert.equal((await control(server, 'GET', `/sandboxes/${box.id}/files?path=a`)).status, 400);
});

test('a sandbox made on one wire is there on the other, and used through both', async () => {
  const declaw = await Sandbox.create({ template: 'base', timeout: 300, metadata: { made: 'there' } });
  const seen = (await control(server, 'GET', '/sandboxes?metadata.made=there')).json[0];
  assert.deepEqual([seen.status, seen.timeout_seconds, seen.preview_access], ['active', 300, 'private']);
  const mine = { id: seen.id, token: (await control(server, 'POST', `/sandboxes/${seen.id}/activate`)).json.access_token };
  await declaw.files.write('/home/user/shared', 'from there');
  assert.equal((await exec(server, mine, 'id -un; cat /home/user/shared')).stdout, 'user\nfrom there');
  assert.equal((await control(server, 'DELETE', `/sandboxes/${seen.id}`)).status, 204);
  assert.equal(await declaw.isRunning(), false);

  const back = await Sandbox.connect(box.id);
  // That SDK always asks for this user.
  assert.equal((await back.commands.run('id -un; cat /srv/list/f')).stdout, 'user\nx\n');
  const shown = (await server.call('GET', `/sandboxes/${box.id}`)).json;
  assert.match(shown.sandbox_id, /^sbx-/);
  assert.equal(shown.template_id, 'tpl-superserve-base');
});
