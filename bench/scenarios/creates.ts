import { setTimeout as sleep } from 'node:timers/promises';
import { Sandbox } from '@declaw/sdk';
import { TestServer } from '../../test/harness/server.ts';
import { type Figure, type Scenario, medianStages, timed } from '../figures.ts';

/** Create until the first command's output has arrived; the sandbox is killed outside the clock. */
async function createAndEcho(): Promise<number> {
  const { ms, value } = await timed(async () => {
    const sandbox = await Sandbox.create({ timeout: 120 });
    const { stdout } = await sandbox.commands.run('echo ready');
    if (stdout !== 'ready\n') throw new Error(`the first command said ${JSON.stringify(stdout)}`);
    return sandbox;
  });
  await value.kill({ wait: true });
  return ms;
}

export const creates: Scenario = {
  name: 'creates',
  async *run({ quick }): AsyncGenerator<Figure> {
    const server = new TestServer();
    await server.start();
    try {
      await createAndEcho();
      const sequential: number[] = [];
      for (let i = 0; i < (quick ? 20 : 100); i++) sequential.push(await createAndEcho());
      yield { name: 'create → first output, one after the other', unit: 'ms', samples: sequential, target: 'p50 ≤ 400', stages: await stages(server) };

      const staggered: Promise<number>[] = [];
      for (let i = 0; i < 20; i++) {
        staggered.push(createAndEcho());
        await sleep(250);
      }
      yield { name: 'create → first output, 20 staggered by 250 ms', unit: 'ms', samples: await Promise.all(staggered) };
      yield { name: 'create → first output, 20 at once', unit: 'ms', samples: await Promise.all(Array.from({ length: 20 }, createAndEcho)) };
    } finally {
      await server.remove();
    }
  },
};

/** Where the time of a create goes, as the server itself measured it. */
async function stages(server: TestServer): Promise<Record<string, number>> {
  const headers: (string | null)[] = [];
  for (let i = 0; i < 20; i++) {
    const response = await fetch(`${server.url}/sandboxes`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${server.apiKey}` },
      body: JSON.stringify({ template: 'base', timeout: 60 }),
    });
    const { sandbox_id: id } = (await response.json()) as { sandbox_id: string };
    headers.push(response.headers.get('server-timing'));
    await fetch(`${server.url}/sandboxes/${id}`, { method: 'DELETE', headers: { authorization: `Bearer ${server.apiKey}` } });
  }
  return medianStages(headers);
}
