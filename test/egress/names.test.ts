import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { serverWithInternet } from '../harness/internet.ts';
import { output } from '../harness/sandbox.ts';
import { prepare } from '../harness/server.ts';
import { eventually } from '../harness/wait.ts';

// The official SDK's network options against a real internet of the test's own, from inside real sandboxes.

const { server, internet } = serverWithInternet();

prepare(async () => {
  const net = internet();
  net.name('good.example', net.host(10));
  net.name('deep.api.good.example', net.host(10));
  net.name('bad.example', net.host(11));
  net.name('inside.example', '10.0.0.1', '169.254.169.254');
  const http = createServer((request, response) => {
    let size = 0;
    request.on('data', (chunk: Buffer) => (size += chunk.length));
    request.on('end', () => response.end(`${request.headers.host} ${request.method} ${request.url} ${size}`));
  });
  net.keep(http);
  await new Promise<void>((resolve) => http.listen(net.listen(80), resolve));
  // A server that speaks first, as PostgreSQL's and mail servers do in their ways.
  await net.serve(5432, (socket) => {
    socket.write('hello\n');
    socket.on('data', (data) => socket.end(`you said ${String(data)}`));
  });
});

/** Status and body of a request from inside, or curl's exit code. */
async function get(sandbox: Sandbox, url: string, ...options: string[]): Promise<string> {
  const { stdout, exitCode } = await sandbox.commands.run(`curl -s -m 8 -w ' %{http_code}' ${options.map((option) => `'${option}'`).join(' ')} '${url}'`);
  return exitCode === 0 ? stdout : `curl ${exitCode}`;
}

/** curl's words for its exit codes: https://curl.se/libcurl/c/libcurl-errors.html */
const cannotResolve = 'curl 6';
const cannotConnect = 'curl 7';

test('without rules a sandbox reaches the whole public internet, and its log tells', async () => {
  const sandbox = await Sandbox.create();
  assert.equal(await get(sandbox, 'http://good.example/x?y=1'), 'good.example GET /x?y=1 0 200');
  assert.equal(await get(sandbox, `http://${internet().host(11)}/`), `${internet().host(11)} GET / 0 200`);
  const log = async (): Promise<any[]> => (await server.call('GET', `/sandboxes/${sandbox.sandboxId}/network?verdict=allowed`)).json.data;
  await eventually(async () => (await log()).filter((each) => each.dst_port === 80).length === 2);
  const [newest, first] = (await log()).filter((each) => each.dst_port === 80);
  assert.deepEqual([first.host, first.dst_ip, first.match_rule, newest.dst_ip], ['good.example', internet().host(10), 'default', internet().host(11)]);
  assert.ok(first.bytes_sent > 50 && first.bytes_recv > 50);
  await sandbox.kill();
});

test('allowOut with a name: that name, any port and protocol, and nothing else', async () => {
  const sandbox = await Sandbox.create({ template: 'python', network: { allowOut: ['good.example'], denyOut: [], allowPublicTraffic: true } });
  assert.equal(await get(sandbox, 'http://good.example/'), 'good.example GET / 0 200');
  assert.equal(await get(sandbox, 'http://bad.example/'), cannotResolve);
  assert.equal(await get(sandbox, 'http://deep.api.good.example/'), cannotResolve, 'a name below it is another name');
  assert.equal(await get(sandbox, `http://${internet().host(10)}/`), cannotConnect, 'its literal address is no way around the name');
  assert.ok(!internet().asked.some((question) => question.endsWith('bad.example')), 'a denied name never leaves the host');
  const postgres = 'import socket; s = socket.create_connection(("good.example", 5432), 5); f = s.makefile("rw"); print(f.readline(), end=""); f.write("x\\n"); f.flush(); print(f.read(), end="")';
  assert.equal(await output(sandbox, `python3 -c '${postgres}'`), 'hello\nyou said x\n');
  await sandbox.kill();
});

test('allowOut with a wildcard: every depth below, not the apex', async () => {
  const sandbox = await Sandbox.create({ network: { allowOut: ['*.good.example'], denyOut: [], allowPublicTraffic: true } });
  assert.equal(await get(sandbox, 'http://deep.api.good.example/'), 'deep.api.good.example GET / 0 200');
  assert.equal(await get(sandbox, 'http://good.example/'), cannotResolve);
  await sandbox.kill();
});

test('denyOut with a name: that name is gone, the rest stays', async () => {
  const sandbox = await Sandbox.create({ network: { allowOut: [], denyOut: ['bad.example'], allowPublicTraffic: true } });
  assert.equal(await get(sandbox, 'http://bad.example/'), cannotResolve);
  assert.equal(await get(sandbox, 'http://good.example/'), 'good.example GET / 0 200');
  await sandbox.kill();
});

test('an allowed name wins over denying everything', async () => {
  const sandbox = await Sandbox.create({ network: { allowOut: ['good.example'], denyOut: ['0.0.0.0/0'], allowPublicTraffic: true } });
  assert.equal(await get(sandbox, 'http://good.example/'), 'good.example GET / 0 200');
  assert.equal(await get(sandbox, 'http://bad.example/'), cannotResolve);
  await sandbox.kill();
});

test('allowInternetAccess false: nothing at all', async () => {
  const sandbox = await Sandbox.create({ allowInternetAccess: false });
  assert.equal(await get(sandbox, 'http://good.example/'), cannotResolve);
  assert.equal(await get(sandbox, `http://${internet().host(10)}/`), cannotConnect);
  await sandbox.kill();
});

test('edited hosts file: a name that is allowed by name is not an address that the guest chose', async () => {
  const sandbox = await Sandbox.create({ network: { allowOut: ['good.example'], denyOut: [], allowPublicTraffic: true } });
  await sandbox.commands.run(`echo '${internet().host(11)} good.example' >> /etc/hosts`, { user: 'root' });
  assert.equal(await get(sandbox, 'http://good.example/'), cannotConnect);
  await sandbox.kill();
});

test('rebinding: a name whose addresses are private leads nowhere, also when everything is allowed', async () => {
  for (const network of [undefined, { allowOut: ['inside.example'], denyOut: [], allowPublicTraffic: true }]) {
    const sandbox = await Sandbox.create(network === undefined ? {} : { network });
    assert.ok([cannotResolve, cannotConnect].includes(await get(sandbox, 'http://inside.example/')));
    await sandbox.kill();
  }
});

test('another Host on plain HTTP, also in a second request on the connection, is answered 403 with a reason', async () => {
  const sandbox = await Sandbox.create({ network: { allowOut: ['good.example'], denyOut: [], allowPublicTraffic: true } });
  const blocked = await get(sandbox, 'http://good.example/', '-H', 'Host: bad.example');
  assert.match(blocked, / 403$/);
  const reason = JSON.parse(blocked.replace(/ 403$/, ''));
  assert.deepEqual([reason.error, reason.host, reason.retry], ['egress_blocked', 'bad.example', false]);
  const both = await output(sandbox, `printf 'GET /1 HTTP/1.1\\r\\nHost: good.example\\r\\n\\r\\nGET /2 HTTP/1.1\\r\\nHost: bad.example\\r\\nConnection: close\\r\\n\\r\\n' | timeout 5 curl -s telnet://good.example:80 || true`);
  assert.match(both, /good\.example GET \/1 0/);
  assert.match(both, /403/);
  assert.ok(!both.includes('/2'));
  await sandbox.kill();
});

test('rules replaced at run time cut what they deny, within two seconds', async () => {
  const sandbox = await Sandbox.create({ template: 'python', network: { allowOut: ['good.example'], denyOut: [], allowPublicTraffic: true } });
  await sandbox.files.write('/tmp/hold.py', 'import socket, time\ns = socket.create_connection(("good.example", 5432), 5)\ns.settimeout(20)\ns.recv(10)\nprint("held", flush=True)\nt = time.time()\ntry: r = s.recv(10)\nexcept OSError as e: r = type(e).__name__\nprint(r, time.time() - t < 3, flush=True)\n');
  let seen = '';
  const holding = sandbox.commands.runStream('python3 /tmp/hold.py', { onStdout: (text: string) => (seen += text) });
  await eventually(() => seen.includes('held'));
  assert.equal((await server.call('PUT', `/sandboxes/${sandbox.sandboxId}/network`, { json: { deny_out: ['0.0.0.0/0'] } })).status, 200);
  await holding;
  assert.match(seen, /held\nConnectionResetError True/);
  await sandbox.kill();
});

test('the proxy killed under traffic: refused at once, and back within two seconds with the same rules', async () => {
  const sandbox = await Sandbox.create({ network: { allowOut: ['good.example'], denyOut: [], allowPublicTraffic: true } });
  assert.equal(await get(sandbox, 'http://good.example/'), 'good.example GET / 0 200');
  process.kill(await egressPid(), 'SIGKILL');
  const killed = Date.now();
  await eventually(async () => (await get(sandbox, 'http://good.example/')) === 'good.example GET / 0 200', { withinMs: 4000, everyMs: 20 });
  assert.ok(Date.now() - killed < 2500, `${Date.now() - killed} ms`);
  assert.equal(await get(sandbox, 'http://bad.example/'), cannotResolve);
  assert.equal(await get(sandbox, `http://${internet().host(10)}/`), cannotConnect);
  await sandbox.kill();
});

test('the proxy outlives a restart of the server, and connections with it', async () => {
  const sandbox = await Sandbox.create({ template: 'python', network: { allowOut: ['good.example'], denyOut: [], allowPublicTraffic: true } });
  await sandbox.files.write('/tmp/hold.py', 'import socket, time\ns = socket.create_connection(("good.example", 5432), 5)\nopen("/tmp/held", "w").write("x")\nwhile not __import__("os").path.exists("/tmp/go"): time.sleep(0.1)\ns.sendall(b"late\\n")\nopen("/tmp/out", "w").write(s.makefile().read())\n');
  await sandbox.commands.run('python3 /tmp/hold.py', { background: true, timeout: 0 });
  await eventually(() => sandbox.files.exists('/tmp/held'));
  const before = await egressPid();
  await server.crash();
  await server.start();
  assert.equal(await egressPid(), before);
  await sandbox.files.write('/tmp/go', '');
  await eventually(async () => (await output(sandbox, 'cat /tmp/out 2>/dev/null || true')) === 'hello\nyou said late\n');
  assert.equal(await get(sandbox, 'http://bad.example/'), cannotResolve);
  await sandbox.kill();
});

test('a neighbour\'s synthetic addresses lead nowhere', async () => {
  const options = { network: { allowOut: ['good.example'], denyOut: [], allowPublicTraffic: true } };
  const [one, other] = [await Sandbox.create(options), await Sandbox.create({ network: { allowOut: ['bad.example'], denyOut: [], allowPublicTraffic: true } })];
  const address = (await output(one, 'getent ahostsv4 good.example')).split(' ')[0]!;
  assert.match(address, /^198\.1[89]\./);
  assert.equal(await get(other, `http://${address}/`), cannotConnect);
  await Promise.all([one.kill(), other.kill()]);
});

async function egressPid(): Promise<number> {
  const { readFileSync } = await import('node:fs');
  return Number(readFileSync(`${server.dataDir}/host/egress/pid`, 'utf8').split(' ')[0]);
}
