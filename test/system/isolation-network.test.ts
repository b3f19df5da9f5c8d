import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { after, test } from 'node:test';
import type { Sandbox } from '@declaw/sdk';
import { instanceId } from '../harness/machine.ts';
import { output, sandboxOfThisFile } from '../harness/sandbox.ts';
import { prepare, serverOfThisFile } from '../harness/server.ts';
import { eventually, sleep } from '../harness/wait.ts';

// What runs inside a sandbox tries to reach what it must not. Every attack runs with root's power inside.

const server = serverOfThisFile();
/** Without rules: whatever it cannot reach, no rule can open. */
const attacker = sandboxOfThisFile({ template: 'python' });
const closed = sandboxOfThisFile({ template: 'python', allowInternetAccess: false });
const victim = sandboxOfThisFile({ template: 'python' });

/** Connections and datagrams that arrived on the host, on every one of its addresses. */
const arrived: string[] = [];
const listener = createServer((socket) => {
  arrived.push(`tcp from ${socket.remoteAddress}`);
  socket.destroy();
});
const receiver = createSocket('udp4', (_, from) => arrived.push(`udp from ${from.address}`));
let tcpPort = 0;
let udpPort = 0;

prepare(async () => {
  await new Promise<void>((resolve) => listener.listen(0, '0.0.0.0', resolve));
  await new Promise<void>((resolve) => receiver.bind(0, '0.0.0.0', resolve));
  tcpPort = (listener.address() as { port: number }).port;
  udpPort = receiver.address().port;
  await victim().commands.run('python3 -m http.server 8000 --bind 0.0.0.0', { background: true, timeout: 0 });
  await eventually(async () => (await server.call('GET', `/sandboxes/${victim().sandboxId}/ports/8000/`)).status === 200);
});

after(() => {
  listener.close();
  receiver.close();
});

interface Attempt {
  /** `connected`, or the name of the error. */
  readonly outcome: string;
  readonly ms: number;
}

/** TCP connections from inside the sandbox, one after another. */
async function connects(sandbox: Sandbox, address: string, port: number, times: number, timeoutSeconds = 10): Promise<Attempt[]> {
  const program = `
import errno, json, socket, sys, time
attempts = []
for _ in range(${times}):
    started = time.monotonic()
    try:
        socket.create_connection((${JSON.stringify(address)}, ${port}), timeout=${timeoutSeconds}).close()
        outcome = 'connected'
    except OSError as error:
        outcome = errno.errorcode.get(error.errno, str(error))
    attempts.append({'outcome': outcome, 'ms': (time.monotonic() - started) * 1000})
print(json.dumps(attempts))
`;
  await sandbox.files.write('/tmp/connects.py', program);
  return JSON.parse(await output(sandbox, 'python3 /tmp/connects.py', { user: 'root', timeout: 200 })) as Attempt[];
}

async function guestIp(sandbox: Sandbox): Promise<string> {
  return (await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json.guest_ip;
}

/** The host's own addresses, the end of the link to this server's sandboxes among them. */
function hostAddresses(): { link: string; all: string[] } {
  const interfaces = networkInterfaces();
  const link = interfaces[`pd${instanceId(server.dataDir)}`]?.find((each) => each.family === 'IPv4')?.address;
  assert.ok(link, 'the host has no link to the sandboxes');
  return { link, all: Object.values(interfaces).flatMap((each) => each ?? []).filter((each) => each.family === 'IPv4' && !each.internal).map((each) => each.address) };
}

/** The other addresses of the link that an address belongs to: blocks of four, of which the first and the last are nobody's. */
function neighboursOnLink(address: string): string[] {
  const parts = address.split('.').map(Number);
  const last = parts[3] ?? 0;
  return [0, 1, 2, 3].map((i) => [...parts.slice(0, 3), (last & ~3) + i].join('.')).filter((each) => each !== address);
}

test('connecting to the internet by literal address fails at once without internet access, ten times out of ten', async () => {
  for (const [address, port] of [['1.1.1.1', 443], ['8.8.8.8', 853], ['93.184.216.34', 80], ['198.18.0.1', 80]] as const) {
    for (const { outcome, ms } of await connects(closed(), address, port, 10)) {
      assert.notEqual(outcome, 'connected', address);
      assert.ok(ms < 100, `${address}:${port} took ${Math.round(ms)} ms (${outcome})`);
    }
  }
});

test('the metadata address and private ranges fail at once too', async () => {
  for (const address of ['169.254.169.254', '169.254.170.2', '100.100.100.200', '10.0.0.1', '172.17.0.1', '192.168.0.1', '100.64.0.1', '0.0.0.0']) {
    for (const { outcome, ms } of await connects(attacker(), address, 80, 3)) {
      assert.notEqual(outcome, 'connected', address);
      assert.ok(ms < 100, `${address} took ${Math.round(ms)} ms (${outcome})`);
    }
  }
});

test('no address of the host answers: not its server, not its listeners, not the link to the sandboxes', async () => {
  const { link, all } = hostAddresses();
  assert.ok(all.includes(link));
  for (const address of [...all, '127.0.0.1']) {
    for (const port of [tcpPort, server.port, 22]) {
      for (const { outcome } of await connects(attacker(), address, port, 2)) assert.notEqual(outcome, 'connected', `${address}:${port}`);
    }
  }
  assert.deepEqual(arrived, []);
});

test('the gateway has nothing that answers but its resolver', async () => {
  const { link } = hostAddresses();
  const gateways = [...neighboursOnLink(await guestIp(attacker())), ...neighboursOnLink(link), '255.255.255.255', '224.0.0.1'];
  for (const address of gateways) {
    for (const port of [80, 15_001, 15_053, 49_983]) {
      for (const { outcome } of await connects(attacker(), address, port, 1, 0.3)) assert.notEqual(outcome, 'connected', `${address}:${port}`);
    }
  }
});

test('a neighbour\'s agent and its server cannot be reached', async () => {
  const address = await guestIp(victim());
  for (const port of [49983, 8000]) {
    for (const { outcome, ms } of await connects(attacker(), address, port, 10)) {
      assert.notEqual(outcome, 'connected', `${address}:${port}`);
      assert.ok(ms < 100, `${address}:${port} took ${Math.round(ms)} ms (${outcome})`);
    }
  }
});

test('its own server on its own loopback can be reached, so that the attempts above mean something', async () => {
  assert.deepEqual((await connects(victim(), '127.0.0.1', 8000, 1)).map((each) => each.outcome), ['connected']);
  assert.deepEqual((await connects(victim(), await guestIp(victim()), 8000, 1)).map((each) => each.outcome), ['connected']);
});

test('datagrams reach nobody: no server outside, no host, no neighbour', async () => {
  const neighbour = await guestIp(victim());
  await victim().files.write('/tmp/udp.py', 'import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(("0.0.0.0", 9999))\nprint("bound", flush=True)\nwhile True: print("got", s.recvfrom(2000), flush=True)\n');
  let heard = '';
  const listening = await victim().stdio.start('python3 -u /tmp/udp.py', { onStdout: (data) => (heard += Buffer.from(data).toString()) });
  await eventually(() => heard.includes('bound'));

  const { link, all } = hostAddresses();
  const targets = [['8.8.8.8', 123], ['1.1.1.1', 443], [neighbour, 9999], [link, udpPort], ...all.map((address) => [address, udpPort]), ['255.255.255.255', udpPort], ['169.254.169.254', 123]];
  await attacker().files.write('/tmp/send.py', `
import json, socket
query = bytes.fromhex('123401000001000000000000076578616d706c6503636f6d0000010001')
answers = []
for address, port in json.loads('${JSON.stringify(targets)}'):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.settimeout(0.5)
    try:
        for _ in range(3): s.sendto(query, (address, port))
        answers.append([address, s.recvfrom(2000)[0].hex()])
    except OSError: pass
print(json.dumps(answers))
`);
  assert.deepEqual(JSON.parse(await output(attacker(), 'python3 /tmp/send.py', { user: 'root' })), []);
  await sleep(300);
  assert.equal(heard, 'bound\n');
  assert.deepEqual(arrived, []);
  await listening.kill();
});

test('names do not resolve without internet access, and asking does not hang', async () => {
  const { exitCode, stdout } = await closed().commands.run('getent hosts example.com; getent hosts metadata.google.internal; exit 2', { timeout: 30 });
  assert.deepEqual([exitCode, stdout], [2, '']);
});

test('there is no IPv6 way out', async () => {
  for (const address of ['2606:4700:4700::1111', '::ffff:1.1.1.1', 'fe80::1', 'fd00::1']) {
    for (const { outcome } of await connects(closed(), address, 443, 2)) assert.notEqual(outcome, 'connected', address);
  }
});

test('raw and packet sockets are refused to root, so that nothing can be forged', async () => {
  await attacker().files.write('/tmp/raw.py', `
import errno, json, socket
outcomes = {}
for name, make in {
    'raw ip': lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
    'raw tcp': lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP),
    'raw icmp': lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    'packet': lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300),
}.items():
    try: make(); outcomes[name] = 'made'
    except OSError as error: outcomes[name] = errno.errorcode[error.errno]
print(json.dumps(outcomes))
`);
  const outcomes = JSON.parse(await output(attacker(), 'python3 /tmp/raw.py', { user: 'root' })) as Record<string, string>;
  assert.equal(Object.keys(outcomes).length, 4);
  for (const [name, outcome] of Object.entries(outcomes)) assert.match(outcome, /^E(PERM|ACCES|AFNOSUPPORT|PROTONOSUPPORT)$/, name);
});

test('traffic under a neighbour\'s address goes nowhere', async () => {
  const [spoofed, { link }] = [await guestIp(victim()), hostAddresses()];
  await attacker().files.write('/tmp/spoof.py', `
import errno, json, socket, struct
log = []
def attempt(name, work):
    try: log.append([name, work() or 'done'])
    except OSError as error: log.append([name, errno.errorcode.get(error.errno, str(error))])
def take_address():
    # RTM_NEWADDR for the neighbour's address on the second interface, as "ip addr add" would do it.
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    address = socket.inet_aton('${spoofed}')
    body = struct.pack('BBBBI', socket.AF_INET, 32, 0, 0, socket.if_nametoindex('eth0')) + struct.pack('HH', 8, 2) + address + struct.pack('HH', 8, 1) + address
    s.send(struct.pack('IHHII', 16 + len(body), 20, 0x605, 1, 0) + body)
    code = struct.unpack('i', s.recv(4096)[16:20])[0]
    if code: raise OSError(-code, 'netlink')
attempt('take the address', take_address)
def send(kind, port):
    s = socket.socket(socket.AF_INET, kind)
    s.settimeout(2)
    try: s.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
    except OSError: pass
    s.bind(('${spoofed}', 0))
    s.connect(('${link}', port))
    s.send(b'forged')
    return 'sent'
attempt('udp', lambda: send(socket.SOCK_DGRAM, ${udpPort}))
attempt('tcp', lambda: send(socket.SOCK_STREAM, ${tcpPort}))
print(json.dumps(log))
`);
  const log = JSON.parse(await output(attacker(), 'python3 /tmp/spoof.py', { user: 'root' })) as [string, string][];
  assert.notEqual(new Map(log).get('tcp'), 'sent', JSON.stringify(log));
  await sleep(300);
  assert.deepEqual(arrived, [], JSON.stringify(log));
  assert.equal((await victim().commands.run('echo unharmed')).stdout, 'unharmed\n');
});
