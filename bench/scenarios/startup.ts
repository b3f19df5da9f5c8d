import { TestServer } from '../../test/harness/server.ts';
import { type Figure, type Scenario, timed } from '../figures.ts';

export const startup: Scenario = {
  name: 'startup',
  async *run({ quick }): AsyncGenerator<Figure> {
    const server = new TestServer();
    await server.start();
    const samples: number[] = [];
    try {
      for (let i = 0; i < (quick ? 3 : 10); i++) {
        await server.stop();
        samples.push((await timed(() => server.start())).ms);
      }
    } finally {
      await server.remove();
    }
    yield { name: 'server start, everything set up → answers', unit: 'ms', samples, target: '≤ 2000' };
  },
};
