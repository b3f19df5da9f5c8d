import { setTimeout as sleep } from 'node:timers/promises';
import { Sandbox } from '@declaw/sdk';
import { TestServer } from '../../test/harness/server.ts';
import { control } from '../../test/harness/superserve.ts';
import { type Figure, type Scenario, median, timed } from '../figures.ts';

/** The size of the built-in base, so that both start on equal slots. */
const size = { vcpu: 2, memory_mib: 512, disk_mib: 5120 };
const steps = [{ run: 'mkdir -p /opt/app && head -c 20000000 /dev/urandom > /opt/app/blob' }, { env: { key: 'STAGE', value: 'bench' } }, { run: 'echo one > /opt/app/one' }, { run: 'rm /opt/app/one && echo two > /opt/app/two' }];

/** Sandboxes from templates that a team has built, beside those from a built-in one. */
export const templates: Scenario = {
  name: 'templates',
  async *run({ quick }): AsyncGenerator<Figure> {
    const server = new TestServer({ PADDOCK_SUPERSERVE_TEAM_RATE: '0' });
    await server.start();
    try {
      const built = await timed(() => build(server, 'plain', { steps }));
      yield { name: 'build, four steps over base', unit: 'ms', samples: [built.ms] };
      const again: number[] = [];
      for (let i = 0; i < 10; i++) again.push((await timed(() => rebuild(server, built.value))).ms);
      yield { name: 'the same again, nothing changed', unit: 'ms', samples: again, target: '≤ 1000' };

      const samples = { base: [] as number[], plain: [] as number[] };
      for (const name of ['base', 'plain'] as const) await createAndEcho(name);
      for (let i = 0; i < (quick ? 20 : 100); i++) for (const name of ['base', 'plain'] as const) samples[name].push(await createAndEcho(name));
      yield { name: 'create → first output, built-in template', unit: 'ms', samples: samples.base };
      yield { name: 'create → first output, built template of 3 layers', unit: 'ms', samples: samples.plain };
      yield { name: 'built ÷ built-in, medians', unit: '×', samples: [median(samples.plain) / median(samples.base)], target: '≤ 1.1' };

      const started = await timed(() => build(server, 'started', { from: 'python', start_cmd: 'exec python3 -m http.server 8000', ready_cmd: 'curl -sf localhost:8000' }));
      yield { name: 'build with a start command, python -m http.server', unit: 'ms', samples: [started.ms] };
      const resumed: number[] = [];
      await createAndEcho('started');
      for (let i = 0; i < (quick ? 10 : 50); i++) resumed.push(await createAndEcho('started'));
      yield { name: 'create → first output, with a start command', unit: 'ms', samples: resumed };
      const sandbox = await Sandbox.create({ template: 'started', timeout: 120 });
      const [metrics] = await sandbox.getMetrics();
      yield { name: 'memory of a sandbox with a start command', unit: 'MiB', samples: [metrics?.memoryUsageMb ?? Number.NaN] };
    } finally {
      await server.remove();
    }
  },
};

async function createAndEcho(template: string): Promise<number> {
  const { ms, value } = await timed(async () => {
    const sandbox = await Sandbox.create({ template, timeout: 120 });
    const { stdout } = await sandbox.commands.run('echo ready');
    if (stdout !== 'ready\n') throw new Error(`the first command said ${JSON.stringify(stdout)}`);
    return sandbox;
  });
  await value.kill({ wait: true });
  return ms;
}

async function build(server: TestServer, name: string, spec: object): Promise<string> {
  const { status, json, text } = await control(server, 'POST', '/templates', { json: { name, ...size, build_spec: { from: 'base', ...spec } } });
  if (status !== 202) throw new Error(`a build answered ${status}: ${text}`);
  await ended(server, json.id, json.build_id);
  return json.id;
}

async function rebuild(server: TestServer, id: string): Promise<void> {
  const { json } = await control(server, 'POST', `/templates/${id}/builds`, {});
  await ended(server, id, json.id);
}

async function ended(server: TestServer, id: string, buildId: string): Promise<void> {
  for (;;) {
    const { json } = await control(server, 'GET', `/templates/${id}/builds/${buildId}`);
    if (json.status === 'ready') return;
    if (json.status === 'failed' || json.status === 'cancelled') throw new Error(`a build ended as ${json.status}: ${json.error_message}`);
    await sleep(20);
  }
}
