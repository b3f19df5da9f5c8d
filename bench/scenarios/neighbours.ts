import { setTimeout as sleep } from 'node:timers/promises';
import { Sandbox } from '@declaw/sdk';
import { attacks } from '../../test/harness/attacks.ts';
import { TestServer } from '../../test/harness/server.ts';
import { type Figure, type Scenario, timed } from '../figures.ts';

/** How long a sandbox's commands take while another does its worst. */
export const neighbours: Scenario = {
  name: 'neighbours',
  async *run({ quick }): AsyncGenerator<Figure> {
    const server = new TestServer();
    await server.start();
    try {
      const neighbour = await Sandbox.create({ timeout: 0 });
      const times = async (): Promise<number[]> => {
        const samples: number[] = [];
        for (let i = 0; i < (quick ? 100 : 500); i++) samples.push((await timed(() => neighbour.commands.run('echo here'))).ms);
        return samples;
      };
      await times();
      yield { name: 'neighbour\'s command, nothing else going on', unit: 'ms', samples: await times() };
      for (const { name, start } of attacks) {
        const attacker = await Sandbox.create({ timeout: 0 });
        await start(attacker);
        await sleep(2000);
        yield { name: `neighbour's command during ${name}`, unit: 'ms', samples: await times(), target: 'p99 ≤ 2 ×' };
        await attacker.kill({ wait: true });
        await sleep(1000);
      }
    } finally {
      await server.remove();
    }
  },
};
