import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createSecureServer } from 'node:http2';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { serverWithInternet } from '../harness/internet.ts';
import { output, sandboxOfThisFile } from '../harness/sandbox.ts';
import { prepare } from '../harness/server.ts';

// What agents do all day, from inside a real sandbox that may reach one host by its name.

const { internet } = serverWithInternet();
const sandbox = sandboxOfThisFile({ template: 'python', network: { allowOut: ['good.example'], denyOut: [], allowPublicTraffic: true } });
const dir = mkdtempSync(join(tmpdir(), 'paddock-protocols-'));
after(() => rmSync(dir, { recursive: true }));

const megabytes = 500;

prepare(async () => {
  const net = internet();
  net.name('good.example', net.host(10));
  net.name('bad.example', net.host(10)); // on the same address, as hosts of one content network are
  const run = (command: string, ...args: string[]): void => void execFileSync(command, args, { cwd: dir, stdio: 'ignore', env: { ...process.env, GIT_CONFIG_GLOBAL: '/dev/null' } });
  run('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'key.pem', '-out', 'cert.pem', '-days', '2', '-subj', '/CN=good.example', '-addext', 'subjectAltName=DNS:good.example');
  run('git', 'init', '-q', '-b', 'main', 'work');
  run('sh', '-c', 'echo content > work/file && cd work && git add file && git -c user.name=t -c user.email=t@t commit -qm one && cd .. && git clone -q --bare work repo.git && cd repo.git && git update-server-info');
  const chunk = Buffer.alloc(1_000_000, 'x');
  const serve = (request: IncomingMessage, response: ServerResponse): void => {
    const path = new URL(request.url ?? '/', 'https://x').pathname;
    if (path === '/big') {
      let left = megabytes;
      const more = (): void => {
        while (left > 0) {
          left--;
          if (!response.write(chunk)) return void response.once('drain', more);
        }
        response.end();
      };
      return more();
    }
    if (path === '/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      let n = 0;
      const timer = setInterval(() => (n < 3 ? response.write(`data: ${n++}\n\n`) : (clearInterval(timer), response.end())), 100);
      return;
    }
    const file = join(dir, path);
    if (path.startsWith('/repo.git/') && existsSync(file)) return void response.end(readFileSync(file));
    if (path === '/') return void response.end(`${request.headers[':authority'] ?? request.headers.host} over ${request.httpVersion}`);
    response.writeHead(404).end();
  };
  const secure = createSecureServer({ key: readFileSync(join(dir, 'key.pem')), cert: readFileSync(join(dir, 'cert.pem')), allowHTTP1: true }, serve as never);
  secure.on('sessionError', () => {}).on('tlsClientError', () => {});
  net.keep(secure);
  await new Promise<void>((resolve) => secure.listen(net.listen(443), resolve));
  await net.serve(9000, (socket) => socket.on('data', (data) => socket.write(data)));
  await sandbox().files.write('/tmp/ca.pem', readFileSync(join(dir, 'cert.pem'), 'utf8'));
});

const curl = (args: string): Promise<{ stdout: string; exitCode: number }> => sandbox().commands.run(`curl -s -m 20 --cacert /tmp/ca.pem ${args}`, { timeout: 60 });

test('HTTPS by HTTP/1.1 and HTTP/2, verified end to end: nothing is intercepted without need', async () => {
  assert.equal((await curl('--http1.1 https://good.example/')).stdout, 'good.example over 1.1');
  assert.equal((await curl('--http2 https://good.example/')).stdout, 'good.example over 2.0');
});

test('a TLS name that is not allowed is cut, also on an address that serves an allowed one', async () => {
  const synthetic = (await output(sandbox(), 'getent ahostsv4 good.example')).split(' ')[0]!;
  const { exitCode, stdout } = await curl(`--resolve bad.example:443:${synthetic} https://bad.example/`);
  assert.deepEqual([exitCode, stdout], [35, '']);
});

test('server-sent events arrive as they are sent', async () => {
  assert.equal((await curl('-N https://good.example/events')).stdout, 'data: 0\n\ndata: 1\n\ndata: 2\n\n');
});

test('git clones over HTTPS', async () => {
  assert.equal(await output(sandbox(), 'cd /tmp && GIT_SSL_CAINFO=/tmp/ca.pem git clone -q https://good.example/repo.git cloned && cat cloned/file', { timeout: 60 }), 'content\n');
});

test(`a download of ${megabytes} MB comes whole`, async () => {
  assert.equal(await output(sandbox(), 'curl -s --cacert /tmp/ca.pem https://good.example/big | wc -c', { timeout: 170 }), `${megabytes * 1_000_000}\n`);
});

test('two hundred connections at once carry their own bytes', async () => {
  await sandbox().files.write('/tmp/many.py', `
import asyncio
async def one(i):
    reader, writer = await asyncio.open_connection('good.example', 9000)
    message = f'message {i}\\n'.encode() * 100
    writer.write(message)
    ok = await reader.readexactly(len(message)) == message
    writer.close()
    return ok
async def main():
    return sum(await asyncio.gather(*(one(i) for i in range(200))))
print(asyncio.run(main()))
`);
  assert.equal(await output(sandbox(), 'python3 /tmp/many.py', { timeout: 100 }), '200\n');
});

test('UDP, ICMP and DNS over other ways lead nowhere, and are refused at once', async () => {
  await sandbox().files.write('/tmp/udp.py', `
import errno, socket, time
query = bytes.fromhex('12340100000100000000000003626164076578616d706c650000010001')
for port in (443, 123):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3); s.connect(('1.1.1.1', port))
    t = time.time()
    try:
        s.send(b'x' * 1200); s.recv(10); print(port, 'answered')
    except OSError as e: print(port, errno.errorcode.get(e.errno), time.time() - t < 1)
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    s = socket.socket(socket.AF_INET, kind); s.settimeout(3); s.connect(('9.9.9.9', 53))
    s.send(query if kind == socket.SOCK_DGRAM else len(query).to_bytes(2, 'big') + query)
    data = s.recv(500)
    print('dns', (data if kind == socket.SOCK_DGRAM else data[2:])[3] & 15)
s = socket.socket(); s.settimeout(3)
try: s.connect(('9.9.9.9', 853)); print('853 connected')
except OSError as e: print(853, errno.errorcode.get(e.errno))
try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).sendto(b'\\x08\\0\\0\\0\\0\\0\\0\\0', ('1.1.1.1', 0)); print('icmp sent')
except OSError as e: print('icmp refused')
`);
  const lines = (await output(sandbox(), 'python3 /tmp/udp.py')).trim().split('\n');
  assert.deepEqual(lines.slice(0, 5), ['443 ECONNREFUSED True', '123 ECONNREFUSED True', 'dns 3', 'dns 3', '853 ECONNREFUSED']);
  assert.ok(!internet().asked.some((question) => question.includes('bad.example')), 'a denied name was asked outside');
});
