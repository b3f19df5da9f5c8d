import { Agent, request } from 'undici';
import { TestServer } from '../../test/harness/server.ts';
import { make, SocketLog } from '../../test/harness/superserve.ts';
import { type Figure, type Scenario, median, timed } from '../figures.ts';

const processes = 200;

/** The same work through both wires, in turns on one sandbox, so that what else the machine does falls on both. */
export const wires: Scenario = {
  name: 'wires',
  async *run({ quick }): AsyncGenerator<Figure> {
    const server = new TestServer({ PADDOCK_SUPERSERVE_TEAM_RATE: '0' });
    await server.start();
    const dispatcher = new Agent({ connections: 1 });
    try {
      const box = await make(server);
      const send = async (path: string, headers: Record<string, string>, body: object): Promise<void> => {
        const answer = await request(`${server.url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body), dispatcher });
        if (answer.statusCode !== 200) throw new Error(`${path} answered ${answer.statusCode}: ${await answer.body.text()}`);
        await answer.body.dump();
      };
      const ways = {
        Declaw: () => send(`/sandboxes/${box.id}/commands`, { 'x-api-key': server.apiKey }, { cmd: 'true' }),
        Superserve: () => send('/exec', { 'x-superserve-sandbox-id': box.id, 'x-access-token': box.token }, { command: 'true' }),
      };
      const samples = { Declaw: [] as number[], Superserve: [] as number[] };
      for (let i = 0; i < 20; i++) for (const way of Object.values(ways)) await way();
      for (let i = 0; i < (quick ? 100 : 500); i++) for (const name of ['Declaw', 'Superserve'] as const) samples[name].push((await timed(ways[name])).ms);
      for (const name of ['Declaw', 'Superserve'] as const) yield { name: `command (true), raw HTTP, ${name} wire`, unit: 'ms', samples: samples[name] };
      yield { name: 'Superserve ÷ Declaw, medians', unit: '×', samples: [median(samples.Superserve) / median(samples.Declaw)], target: '≤ 1.1' };

      const rounds: number[] = [];
      for (let i = 0; i < (quick ? 1 : 5); i++) {
        const { ms } = await timed(async () => {
          const logs = Array.from({ length: processes }, () => new SocketLog(server, box, '/exec/connect', 'superserve.exec.v1'));
          await Promise.all(
            logs.map(async (log, n) => {
              await log.opened;
              log.send({ command: 'read line; echo "$line"' });
              log.stdin(`${n}\n`);
              await log.closed;
              if (log.channel(1) !== `${n}\n`) throw new Error(`process ${n} said ${JSON.stringify(log.channel(1))}`);
            }),
          );
        });
        rounds.push(ms);
      }
      yield { name: `${processes} WebSocket processes at once, first dial → last exit`, unit: 'ms', samples: rounds };
    } finally {
      await dispatcher.close();
      await server.remove();
    }
  },
};
