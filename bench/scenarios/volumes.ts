import { Readable } from 'node:stream';
import { Sandbox, Volumes } from '@declaw/sdk';
import { archive } from '../../test/harness/archives.ts';
import { residentBytes } from '../../test/harness/machine.ts';
import { TestServer } from '../../test/harness/server.ts';
import { type Figure, type Scenario, medianStages, timed } from '../figures.ts';

const gib = 1024 * 1024 * 1024;
const chunk = Buffer.alloc(1024 * 1024, 'paddock');

export const volumes: Scenario = {
  name: 'volumes',
  async *run({ quick }): AsyncGenerator<Figure> {
    const server = new TestServer({ PADDOCK_WARM_GUESTS: '2' });
    await server.start();
    try {
      const { volumeId } = await Volumes.empty('large');
      const authorization = `Bearer ${server.apiKey}`;
      const rates: number[] = [];
      const growth: number[] = [];
      for (let i = 0; i < (quick ? 1 : 3); i++) {
        const before = residentBytes(server.pid);
        let most = before;
        const watch = setInterval(() => (most = Math.max(most, residentBytes(server.pid))), 20);
        const body = Readable.from((function* () {
          for (let sent = 0; sent < gib; sent += chunk.length) yield chunk;
        })());
        const { ms } = await timed(async () => {
          const answer = await fetch(`${server.url}/volumes/${volumeId}/files/raw?path=/big`, { method: 'PUT', headers: { authorization, 'content-type': 'application/octet-stream', 'content-length': String(gib) }, body: Readable.toWeb(body) as ReadableStream, duplex: 'half' } as RequestInit);
          if (answer.status !== 200) throw new Error(await answer.text());
        });
        clearInterval(watch);
        rates.push(gib / 1e6 / (ms / 1000));
        growth.push((most - before) / 1024 / 1024);
      }
      yield { name: 'upload of a file, 1 GiB, durable', unit: 'MB/s', samples: rates, target: '≥ 150' };
      yield { name: 'memory of the server meanwhile, above before', unit: 'MiB', samples: growth };

      const many = await Volumes.create('many', archive(...Array.from({ length: 1000 }, (_, i) => ({ name: `d${i % 20}/f${i}`, data: 'x'.repeat(1024) }))));
      for (const [name, attach, target] of [
        ['create with 1 GiB mounted', [{ volumeId, mountPath: '/data', mode: 'mount' as const }], '+ 50 over one without'],
        ['create with 1 GiB mounted read-only', [{ volumeId, mountPath: '/data', mode: 'mount-ro' as const }], ''],
        ['create without volumes', [], ''],
        ['create with 1,000 files copied', [{ volumeId: many.volumeId, mountPath: '/data' }], ''],
      ] as const) {
        const samples: number[] = [];
        const timings: (string | null)[] = [];
        for (let i = 0; i < (quick ? 5 : 20); i++) {
          await new Promise((resolve) => setTimeout(resolve, 1000)); // until a guest waits
          const body = JSON.stringify({ volumes: attach.map((each) => ({ volume_id: each.volumeId, mount_path: each.mountPath, ...('mode' in each ? { mode: each.mode } : {}) })) });
          const { ms, value } = await timed(async () => {
            const answer = await fetch(`${server.url}/sandboxes`, { method: 'POST', headers: { authorization, 'content-type': 'application/json' }, body });
            return { timing: answer.headers.get('server-timing'), id: ((await answer.json()) as { sandbox_id: string }).sandbox_id };
          });
          samples.push(ms);
          timings.push(value.timing);
          await (await Sandbox.connect(value.id)).kill({ wait: true });
        }
        yield { name, unit: 'ms', samples, target, stages: medianStages(timings) };
      }
    } finally {
      await server.remove();
    }
  },
};
