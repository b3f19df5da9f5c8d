import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { after, before, test } from 'node:test';
import { type LabGuest, Laboratory } from './testing/laboratory.ts';
import { UpstreamProxy } from './upstream-proxy.ts';

// A company's network: the host itself reaches the internet only through a proxy.

let lab: Laboratory;
let guest: LabGuest;
const heads: string[] = [];
const proxy = createServer((client) => {
  client.on('error', () => {});
  client.once('data', (data: Buffer) => {
    const head = data.toString();
    heads.push(head);
    const [, host = '', port] = /^CONNECT ([\d.]+):(\d+) HTTP\/1\.1/.exec(head) ?? [];
    if (!head.includes(`Basic ${Buffer.from('user:p@ss').toString('base64')}`)) return client.end('HTTP/1.1 407 Who\r\n\r\n');
    const upstream: Socket = connect(Number(port), host, () => {
      client.write('HTTP/1.1 200 Connected\r\n\r\n');
      client.pipe(upstream).pipe(client);
    });
    return upstream.on('error', () => client.end('HTTP/1.1 502 No\r\n\r\n'));
  });
});

before(async () => {
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  lab = await Laboratory.open(1, { upstreamProxy: `http://user:p%40ss@127.0.0.1:${(proxy.address() as { port: number }).port}` });
  [guest] = lab.guests as [LabGuest];
  await lab.serve(7000, (socket) => socket.end('reached'));
});
after(async () => {
  proxy.close();
  await lab.close();
});

test('connections go through the proxy, to the address that was judged', async () => {
  lab.name('good.example', lab.host(10));
  await lab.admit(guest, { allow: ['good.example'] });
  assert.equal(await guest.run('return converse("good.example", 7000, [])'), 'reached|end');
  assert.match(heads.at(-1)!, new RegExp(`^CONNECT ${lab.host(10)}:7000 HTTP/1.1\r\n`));
});

test('what the proxy cannot reach, the sandbox sees as unreachable', async () => {
  await lab.admit(guest, {});
  assert.equal(await guest.run('return converse(args.host, 7001, [])', { host: lab.host(10) }), '|ECONNRESET');
  const [event] = await lab.events((event) => event.port === 7001);
  assert.match(event!.reason, /the upstream proxy refused with status 502/);
});

test("private addresses stay closed, the proxy's own included", async () => {
  heads.length = 0;
  for (const address of ['127.0.0.1', '10.0.0.1']) assert.equal((await guest.attempt(address === '127.0.0.1' ? '169.254.169.254' : address, 80)).outcome, 'ECONNREFUSED');
  assert.deepEqual(heads, []);
});

test('a proxy that wants a password, and one that is none, are told in words', async () => {
  const { port } = proxy.address() as { port: number };
  await assert.rejects(new UpstreamProxy(`http://127.0.0.1:${port}`, null).connect('198.51.100.1', 80, AbortSignal.timeout(2000)), /status 407/);
  assert.throws(() => new UpstreamProxy('socks5://127.0.0.1', null), /not an http/);
});
