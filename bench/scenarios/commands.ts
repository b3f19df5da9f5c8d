import { Sandbox } from '@declaw/sdk';
import { TestServer } from '../../test/harness/server.ts';
import { type Figure, type Scenario, timed } from '../figures.ts';

const streamedMib = 64;

export const commands: Scenario = {
  name: 'commands',
  async *run({ quick }): AsyncGenerator<Figure> {
    const server = new TestServer();
    await server.start();
    try {
      const sandbox = await Sandbox.create({ timeout: 600 });
      await sandbox.commands.run('true');
      const trips: number[] = [];
      for (let i = 0; i < (quick ? 50 : 300); i++) trips.push((await timed(() => sandbox.commands.run('true'))).ms);
      yield { name: 'command round trip (true)', unit: 'ms', samples: trips, target: '≤ 25 / 60' };

      const firsts: number[] = [];
      for (let i = 0; i < (quick ? 20 : 100); i++) {
        let first = 0;
        const started = performance.now();
        await sandbox.commands.runStream('echo x', { onStdout: () => (first ||= performance.now() - started) });
        firsts.push(first);
      }
      yield { name: 'streamed command → first output', unit: 'ms', samples: firsts };

      const rates: number[] = [];
      for (let i = 0; i < (quick ? 1 : 3); i++) {
        let bytes = 0;
        const { ms } = await timed(() => sandbox.commands.runStream(`head -c ${streamedMib}M /dev/zero | tr '\\0' x`, { onStdout: (text: string) => (bytes += text.length) }));
        if (bytes !== streamedMib * 1024 * 1024) throw new Error(`${bytes} bytes came through the stream`);
        rates.push(bytes / 1e6 / (ms / 1000));
      }
      yield { name: `stream throughput, ${streamedMib} MiB of text`, unit: 'MB/s', samples: rates };
      await sandbox.kill({ wait: true });
    } finally {
      await server.remove();
    }
  },
};
