import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Laboratory } from '../../src/egress/testing/laboratory.ts';
import { type Figure, type Scenario, timed } from '../figures.ts';

const megabytes = 500;
const connections = 2000;

/** Runs in a guest's namespace and here alike: a new connection for each request, and one large download. Returns milliseconds and MB/s. */
const client = `
  const get = (path) => new Promise((resolve, reject) => http.get({ host: args.host, port: 80, path, agent: false }, (response) => {
    let size = 0;
    response.on('data', (chunk) => (size += chunk.length)).on('end', () => resolve(size)).on('error', reject);
  }).on('error', reject));
  for (let i = 0; i < 50; i++) await get('/');
  const requests = [];
  for (let i = 0; i < args.requests; i++) {
    const started = performance.now();
    await get('/');
    requests.push(performance.now() - started);
  }
  const rates = [];
  for (let i = 0; i < args.downloads; i++) {
    const started = performance.now();
    const size = await get('/big');
    rates.push(size / 1e6 / ((performance.now() - started) / 1000));
  }
  return { requests, rates };`;

interface Measured {
  readonly requests: number[];
  readonly rates: number[];
}

/** The same client in a process of its own, as in a guest, but in the machine's own namespace. */
async function runDirect(args: object): Promise<Measured> {
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

/** What the way through the egress proxy costs, beside the direct way with the same client and server. */
export const egress: Scenario = {
  name: 'egress',
  async *run({ quick }): AsyncGenerator<Figure> {
    const lab = await Laboratory.open(1);
    try {
      const guest = lab.guests[0]!;
      const chunk = Buffer.alloc(1 << 20, 'x');
      const server = createServer((request, response) => {
        if (request.url !== '/big') return response.end('ok');
        let left = megabytes;
        const more = (): void => {
          while (left > 0) {
            left--;
            if (!response.write(chunk)) return void response.once('drain', more);
          }
          response.end();
        };
        return more();
      });
      server.keepAliveTimeout = 60_000;
      lab.keep(server);
      await new Promise<void>((resolve) => server.listen(lab.listen(80), resolve));
      await lab.admit(guest, {});
      const args = { host: lab.host(10), requests: quick ? 300 : 2000, downloads: quick ? 1 : 5 };
      const direct = await runDirect(args);
      const proxied = await guest.run<Measured>(client, args);
      yield { name: 'request on a new connection, direct', unit: 'ms', samples: direct.requests };
      yield { name: 'request on a new connection, through the proxy', unit: 'ms', samples: proxied.requests, target: 'p50 ≤ +0.5' };
      yield { name: `download of ${megabytes} MB, direct`, unit: 'MB/s', samples: direct.rates };
      yield { name: `download of ${megabytes} MB, through the proxy`, unit: 'MB/s', samples: proxied.rates, target: '≥ 60 %' };

      const changes: number[] = [];
      for (let i = 0; i < (quick ? 50 : 300); i++) changes.push((await timed(() => lab.admit(guest, i % 2 === 0 ? { allow: ['good.example', '198.51.100.0/24'] } : {}))).ms);
      yield { name: 'change of a sandbox\'s rules, in force', unit: 'ms', samples: changes, target: '≤ 10' };

      await lab.admit(guest, {});
      const before = Number((await lab.control.request({ op: 'stats' }))['memoryBytes']);
      const held = await guest.run<number>(
        `globalThis.opened = await Promise.all(Array.from({ length: args.connections }, () => new Promise((resolve, reject) => { const socket = net.connect(80, args.host, () => { socket.write('GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); socket.once('data', () => resolve(socket)); }).on('error', reject); })));
         return globalThis.opened.length;`,
        { host: lab.host(10), connections },
      );
      const after = Number((await lab.control.request({ op: 'stats' }))['memoryBytes']);
      if (held !== connections) throw new Error(`${held} connections are held`);
      yield { name: `memory of the proxy for each of ${connections} connections held`, unit: 'MiB', samples: [(after - before) / connections / 1024 / 1024] };
    } finally {
      await lab.close();
    }
  },
};
