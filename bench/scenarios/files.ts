import { Sandbox } from '@declaw/sdk';
import { TestServer } from '../../test/harness/server.ts';
import { type Figure, type Scenario, timed } from '../figures.ts';

export const files: Scenario = {
  name: 'files',
  async *run({ quick }): AsyncGenerator<Figure> {
    const server = new TestServer();
    await server.start();
    try {
      const sandbox = await Sandbox.create({ timeout: 600 });
      const data = Buffer.alloc(64 * 1024 * 1024, 'paddock');
      const authorization = `Bearer ${server.apiKey}`;
      const url = `${server.url}/sandboxes/${sandbox.sandboxId}/files/raw?path=/home/user/big`;
      const writes: number[] = [];
      const reads: number[] = [];
      for (let i = 0; i < (quick ? 3 : 10); i++) {
        const written = await timed(async () => (await fetch(url, { method: 'PUT', headers: { authorization, 'content-type': 'application/octet-stream' }, body: data })).arrayBuffer());
        writes.push(data.length / 1e6 / (written.ms / 1000));
        const read = await timed(async () => {
          let size = 0;
          for await (const chunk of (await fetch(url, { headers: { authorization } })).body ?? []) size += (chunk as Uint8Array).length;
          return size;
        });
        if (read.value !== data.length) throw new Error(`${read.value} bytes were read`);
        reads.push(data.length / 1e6 / (read.ms / 1000));
      }
      yield { name: 'file write, 64 MiB', unit: 'MB/s', samples: writes, target: '≥ 150' };
      yield { name: 'file read, 64 MiB', unit: 'MB/s', samples: reads, target: '≥ 200' };

      const small: number[] = [];
      for (let i = 0; i < (quick ? 30 : 100); i++) small.push((await timed(() => sandbox.files.write('/home/user/small', 'x'.repeat(1024)))).ms);
      yield { name: 'file write, 1 KiB', unit: 'ms', samples: small };
      await sandbox.kill({ wait: true });
    } finally {
      await server.remove();
    }
  },
};
