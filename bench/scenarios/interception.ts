import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { SecretWorld, standIn } from '../../src/egress/testing/secret-world.ts';
import type { Figure, Scenario } from '../figures.ts';

const connections = 16;

/** Runs in a guest's namespace and here alike: single requests on one warm connection, then as many as go over several. `via` is a proxy that takes CONNECT. */
const client = `
  const open = () => new Promise((resolve, reject) => {
    const secure = (socket) => { const s = tls.connect({ socket, servername: 'api.example', ca: args.ca, ALPNProtocols: ['http/1.1'], rejectUnauthorized: args.verify }, () => { s.setNoDelay(true); resolve(s); }); s.on('error', reject); };
    const socket = net.connect(args.via ?? { host: args.host, port: 443 }, () => {
      socket.setNoDelay(true);
      if (args.via === null) return secure(socket);
      socket.write('CONNECT ' + args.host + ':443 HTTP/1.1\\r\\nHost: ' + args.host + ':443\\r\\n\\r\\n');
      socket.once('data', () => secure(socket));
    }).on('error', reject);
  });
  const agentOf = (socket) => { const agent = new https.Agent({ keepAlive: true, maxSockets: 1 }); agent.createConnection = () => socket; return agent; };
  const get = (agent) => new Promise((resolve, reject) => https.get({ host: 'api.example', path: '/', agent, headers: args.headers }, (response) => {
    if (response.statusCode !== 200) reject(new Error('status ' + response.statusCode));
    response.on('data', () => {}).on('end', resolve).on('error', reject);
  }).on('error', reject));
  const agent = agentOf(await open());
  for (let i = 0; i < 300; i++) await get(agent);
  const times = [];
  for (let i = 0; i < args.requests; i++) { const started = performance.now(); await get(agent); times.push(performance.now() - started); }
  const fresh = [];
  for (let i = 0; i < args.requests / 10; i++) {
    const started = performance.now();
    const socket = await open();
    await get(agentOf(socket));
    fresh.push(performance.now() - started);
    socket.destroy();
  }
  const agents = await Promise.all(Array.from({ length: args.connections }, async () => agentOf(await open())));
  const rates = [];
  for (let round = 0; round < 3; round++) {
    let done = 0; const until = performance.now() + args.seconds * 1000; const started = performance.now();
    await Promise.all(agents.map(async (each) => { while (performance.now() < until) { await get(each); done++; } }));
    rates.push(done / ((performance.now() - started) / 1000));
  }
  return { times, fresh, rates };`;

interface Measured {
  readonly times: number[];
  readonly fresh: number[];
  readonly rates: number[];
}

async function runHere(args: object): Promise<Measured> {
  const child = spawn(process.execPath, [join(import.meta.dirname, '../../src/egress/testing/guest-shell.mjs')], { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    child.stdin.write(`${JSON.stringify({ id: 1, code: client, args })}\n`);
    const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    const { value, error } = JSON.parse(line) as { value: Measured; error?: string };
    if (error !== undefined) throw new Error(error);
    return value;
  } finally {
    child.kill('SIGKILL');
  }
}

/** mitmproxy, if the machine has it: what others use to look into TLS. */
async function startMitmproxy(dir: string, port: number): Promise<ChildProcess | null> {
  if (spawnSync('mitmdump', ['--version']).status !== 0) return null;
  const child = spawn('mitmdump', ['--quiet', '--listen-host', '127.0.0.1', '--listen-port', String(port), '--set', `confdir=${dir}`, '--set', 'ssl_insecure=true', '--set', 'stream_large_bodies=1', '--set', 'connection_strategy=lazy'], { stdio: 'ignore' });
  for (let i = 0; i < 200; i++) {
    const up = await new Promise<boolean>((resolve) => connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false)));
    if (up) return child;
    await sleep(100);
  }
  child.kill('SIGKILL');
  throw new Error('mitmdump did not start');
}

/** What it costs that TLS is opened, beside the same connection spliced, and a credential put in. */
export const interception: Scenario = {
  name: 'interception',
  async *run({ quick }): AsyncGenerator<Figure> {
    const world = await SecretWorld.open();
    const dir = mkdtempSync(join(tmpdir(), 'paddock-mitm-'));
    let mitm: ChildProcess | null = null;
    try {
      const { lab, guest } = world;
      const [address] = [lab.host(10)];
      const args = { requests: quick ? 500 : 3000, seconds: quick ? 1 : 4, connections, via: null, verify: true, headers: {} };
      const elsewhere = { standIn: 'another-stand-in-0123456789', id: '3', secretName: 'OTHER' };
      const measure = async (ca: string, headers: object): Promise<Measured> => {
        const [host] = (await guest.resolve('api.example')) as string[];
        return guest.run<Measured>(client, { ...args, host, ca, headers });
      };
      const direct = await runHere({ ...args, host: address, ca: world.internetAuthority.certificate });
      await lab.admit(guest, {});
      const spliced = await measure(world.internetAuthority.certificate, {});
      await world.admit([world.binding(elsewhere, { hosts: [{ kind: 'name', text: 'other.example', name: 'other.example' }] })]);
      const inspected = await measure(world.authority.certificate, {});
      await world.admit([world.binding()]);
      const swapped = await measure(world.authority.certificate, { Authorization: `Bearer ${standIn}` });
      yield { name: 'https request on a warm connection, direct', unit: 'ms', samples: direct.times };
      yield { name: 'the same, spliced', unit: 'ms', samples: spliced.times };
      yield { name: 'the same, opened and inspected', unit: 'ms', samples: inspected.times, target: 'p50 ≤ spliced + 1' };
      yield { name: 'the same, with a credential put in and taken out', unit: 'ms', samples: swapped.times, target: '≤ inspected + 0.2' };
      yield { name: 'https request on a new connection, spliced', unit: 'ms', samples: spliced.fresh };
      yield { name: 'the same, opened and inspected', unit: 'ms', samples: inspected.fresh };
      yield { name: `requests over ${connections} connections, spliced`, unit: '1/s', samples: spliced.rates };
      yield { name: `requests over ${connections} connections, inspected`, unit: '1/s', samples: inspected.rates };
      yield { name: `requests over ${connections} connections, with a credential`, unit: '1/s', samples: swapped.rates };

      const port = 18_080;
      mitm = await startMitmproxy(dir, port);
      if (mitm === null) console.log('mitmproxy is not installed (apt-get install mitmproxy), so it is not compared with.');
      else {
        const others = await runHere({ ...args, host: address, ca: '', verify: false, via: { host: '127.0.0.1', port } });
        yield { name: 'https request on a warm connection, mitmproxy', unit: 'ms', samples: others.times };
        yield { name: `requests over ${connections} connections, mitmproxy`, unit: '1/s', samples: others.rates, target: '≤ inspected' };
      }

      const stats = async (): Promise<number> => Number((await lab.control.request({ op: 'stats' }))['memoryBytes']) / 1024 / 1024;
      const memory: number[] = [];
      const before = await stats();
      const timer = setInterval(() => void stats().then((mib) => memory.push(mib - before), () => {}), 50);
      const ms = await guest.run<number>(
        `const started = performance.now(); return new Promise((resolve, reject) => https.get('https://api.example/download/1024', { lookup, ca: args.ca, headers: args.headers }, (res) => { res.on('data', () => {}).on('end', () => resolve(performance.now() - started)).on('error', reject); }).on('error', reject))`,
        { ca: world.authority.certificate, headers: { Authorization: `Bearer ${standIn}` } },
      );
      clearInterval(timer);
      yield { name: 'download of 1 GiB, searched for the credential', unit: 'MB/s', samples: [1073.7 / (ms / 1000)] };
      yield { name: 'memory that it takes in the proxy', unit: 'MiB', samples: [Math.max(0, ...memory)], target: '≤ 100' };
    } finally {
      mitm?.kill('SIGKILL');
      rmSync(dir, { recursive: true, force: true });
      await world.close();
    }
  },
};
