import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { linkAddresses } from '../host/network/addresses.ts';
import { type LabGuest, Laboratory } from './testing/laboratory.ts';

// By address, from raw sockets of a guest: what must not be reachable whatever the rules say, and what the rules close.

let lab: Laboratory;
let attacker: LabGuest;
let neighbour: LabGuest;

before(async () => {
  lab = await Laboratory.open(2);
  [attacker, neighbour] = lab.guests as [LabGuest, LabGuest];
  for (const port of [80, 443, 853, 5353]) await lab.serve(port, (socket) => socket.end('reached\n'));
});
after(() => lab.close());

async function assertRefused(address: string, port: number, why: string): Promise<void> {
  const { outcome, ms } = await attacker.attempt(address, port);
  assert.equal(outcome, 'ECONNREFUSED', why);
  assert.ok(ms < 100, `${why}: refused after ${ms} ms`);
}

test('before it is admitted a guest reaches nothing', async () => {
  await assertRefused(lab.host(10), 443, 'not admitted');
  assert.equal(await attacker.run(`return attempt('8.8.8.8', 53).then((r) => r.outcome)`), 'ECONNREFUSED');
});

test('without rules the public internet is open', async () => {
  await lab.admit(attacker, {});
  assert.equal(await attacker.run('return converse(args.host, 443, "x")', { host: lab.host(10) }), 'reached\n|end');
});

test('private, loopback, link-local, carrier and metadata ranges are refused, even when a rule allows everything', async () => {
  await lab.admit(attacker, { allow: ['0.0.0.0/0', '10.0.0.0/8', '169.254.169.254'] });
  const addresses = ['0.0.0.1', '10.0.0.1', '10.255.255.254', '100.64.0.1', '100.100.100.200', '127.0.0.1', '127.255.255.254', '169.254.169.254', '169.254.170.2', '172.16.0.1', '172.31.255.254', '192.0.0.192', '192.168.0.1', '192.168.255.254', '198.18.0.1', '198.19.255.254', '168.63.129.16', '224.0.0.1', '240.0.0.1', '255.255.255.254'];
  // Bound to the link, so that the guest's own tables for loopback and multicast do not keep the packet in.
  const refused = await attacker.run<string[]>(`return Promise.all(args.addresses.map((host) => attempt(host, 80).then((r) => host + ' ' + r.outcome)))`, { addresses: addresses.filter((address) => !address.startsWith('127.') && !address.startsWith('224.') && !address.startsWith('240.') && !address.startsWith('255.')) });
  for (const line of refused) assert.match(line, / ECONNREFUSED$|^0\.0\.0\.1 /, line);
  assert.deepEqual(refused.filter((line) => line.endsWith('connected')), []);
  for (const spelling of ['2130706433', '0x7f.1', '0177.0.0.1', '127.1', '::ffff:10.0.0.1', '::ffff:a9fe:a9fe', '64:ff9b::a9fe:a9fe', '2002:a00:1::']) {
    const { outcome } = await attacker.attempt(spelling, 80);
    assert.notEqual(outcome, 'connected', spelling);
  }
});

test('a public name that points to a private address leads nowhere', async () => {
  lab.name('metadata.example', '169.254.169.254');
  lab.name('mixed.example', '10.0.0.1', lab.host(10));
  await lab.admit(attacker, {});
  assert.equal(await attacker.resolve('metadata.example'), 'ENODATA');
  assert.deepEqual(await attacker.resolve('mixed.example'), [lab.host(10)]);
  const [event] = await lab.events((event) => event.host === 'metadata.example');
  assert.equal(event?.matchRule, 'internal-ip');
  assert.equal(event?.protocol, 'dns');
});

test("the host's own public addresses are closed", async () => {
  await lab.admit(attacker, { allow: ['0.0.0.0/0'] });
  const own = await attacker.run<string>('return args.own', { own: (await import('node:os')).networkInterfaces()['eth0']?.[0]?.address ?? '100.64.0.1' });
  await assertRefused(own, 80, 'the uplink of the host');
  const { near, far } = linkAddresses(lab.instance.subnet, 0);
  await assertRefused(far, 15_001, 'the gateway');
  const { outcome } = await attacker.attempt(near, 22);
  assert.notEqual(outcome, 'connected', "the host's end of the link");
});

test('scans of neighbours and of the gateway find nothing', async () => {
  await lab.admit(attacker, {});
  await lab.admit(neighbour, {});
  await neighbour.run(`held.push(net.createServer((s) => s.end('neighbour')).listen(8000, '0.0.0.0'))`);
  await assertRefused(neighbour.slot.address, 8000, 'a neighbour');
  const gateway = linkAddresses(lab.instance.subnet, attacker.slot.number).near;
  for (const port of [22, 53, 80, 8000, 15_001, 15_053, 49_983]) {
    const { outcome } = await attacker.attempt(gateway, port);
    // Every address answers on port 53: it is the resolver.
    assert.equal(outcome, port === 53 ? 'connected' : 'ECONNREFUSED', `port ${port}`);
  }
});

test('ten connects in a row to a denied literal address are each refused at once, blocking and with a timeout', async () => {
  await lab.admit(attacker, { deny: [`${lab.host(11)}/32`] });
  const script = `
import socket, time
for i in range(10):
    s = socket.socket()
    if i % 2: s.settimeout(5)
    t = time.time()
    try:
        s.connect((${JSON.stringify(lab.host(11))}, 443)); print('connected')
    except ConnectionRefusedError: print('refused' if time.time() - t < 0.1 else 'slow')
    except OSError as e: print(e)
`;
  const { runInNetns } = await import('../host/network/netns.ts');
  const said = await runInNetns(attacker.slot.netns, 'python3', ['-c', script]);
  assert.deepEqual(said.trim().split('\n'), Array.from({ length: 10 }, () => 'refused'));
  const events = await lab.events((event) => event.address === lab.host(11) && event.verdict === 'blocked');
  assert.equal(events[0]?.matchRule, 'cidr');
  assert.equal(events[0]?.rule, `${lab.host(11)}/32`);
});

test('an allowed CIDR opens itself and nothing else; an allowed one wins over a denied one', async () => {
  await lab.admit(attacker, { allow: [`${lab.net}.8/30`], deny: ['0.0.0.0/0', `${lab.host(10)}/32`] });
  assert.equal((await attacker.attempt(lab.host(10), 443)).outcome, 'connected');
  await assertRefused(lab.host(12), 443, 'outside the CIDR');
  await lab.admit(attacker, { allow: [`${lab.net}.0/24`, `${lab.net}.8/30`, `${lab.net}.9/32`] });
  assert.equal((await attacker.attempt(lab.host(12), 443)).outcome, 'connected', 'overlapping rules');
});

test('everything denied: nothing is reached, and nothing is resolved', async () => {
  lab.name('site.example', lab.host(10));
  await lab.admit(attacker, { deny: ['0.0.0.0/0'] });
  await assertRefused(lab.host(10), 443, 'denied');
  lab.asked.length = 0;
  assert.equal(await attacker.resolve('site.example'), 'ENOTFOUND');
  assert.deepEqual(lab.asked, []);
});

test('UDP other than DNS goes nowhere: QUIC, and DNS on other ports', async () => {
  await lab.admit(attacker, {});
  for (const port of [443, 853, 5353, 123]) {
    const heard = await attacker.run<string>(
      `return new Promise((resolve) => { const s = dgram.createSocket('udp4'); s.on('message', () => resolve('answer')).on('error', (e) => resolve(e.code)); s.send('hello', args.port, args.host); setTimeout(() => { s.close(); resolve('silence'); }, 150); })`,
      { host: lab.host(10), port },
    );
    assert.notEqual(heard, 'answer', `UDP ${port}`);
  }
});

test('ICMP gets no answer', async () => {
  await lab.admit(attacker, {});
  const { runInNetns } = await import('../host/network/netns.ts');
  const script = `
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); s.settimeout(0.3)
s.sendto(struct.pack('!BBHHH', 8, 0, 0xf7fe, 1, 0), (${JSON.stringify(lab.host(10))}, 0))
try: s.recvfrom(100); print('answer')
except OSError: print('silence')
`;
  assert.equal((await runInNetns(attacker.slot.netns, 'python3', ['-c', script])).trim(), 'silence');
});

test('an expelled guest reaches nothing, and its connections are cut', async () => {
  await lab.serve(7000, (socket) => socket.write('welcome'));
  await lab.admit(attacker, {});
  const open = attacker.run<string>(`return new Promise((resolve) => { const s = net.connect(7000, args.host); s.on('error', (e) => resolve(e.code)).on('close', () => resolve('closed')); s.on('data', () => fs.writeSync(2, '')); })`, { host: lab.host(10) });
  await attacker.attempt(lab.host(10), 443);
  const started = performance.now();
  await lab.control.request({ op: 'expel', address: attacker.slot.address });
  assert.equal(await open, 'ECONNRESET');
  assert.ok(performance.now() - started < 2000);
  await assertRefused(lab.host(10), 443, 'expelled');
});
