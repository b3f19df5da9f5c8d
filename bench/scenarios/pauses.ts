import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Sandbox } from '@declaw/sdk';
import { TestServer } from '../../test/harness/server.ts';
import { type Figure, type Scenario, medianStages, timed } from '../figures.ts';

interface Round {
  readonly pause: number[];
  readonly resume: number[];
  readonly checkpointMib: number[];
  readonly stages: { pause: (string | null)[]; resume: (string | null)[] };
}

/** Saving sandboxes and bringing them back: of several sizes, from disk and from memory, and forks. */
export const pauses: Scenario = {
  name: 'pauses',
  async *run({ quick }): AsyncGenerator<Figure> {
    const fromDisk = new TestServer({ PADDOCK_KEPT_MEMORY: '0' });
    const kept = new TestServer({ PADDOCK_KEPT_MEMORY: '4096' });
    const n = quick ? 3 : 10;
    try {
      await fromDisk.start();
      for (const [what, prepare, rounds, targets] of sizes(n)) {
        const round = await rounded(fromDisk, prepare, rounds);
        yield { name: `pause, ${what}`, unit: 'ms', samples: round.pause, stages: medianStages(round.stages.pause), ...(targets.pause === undefined ? {} : { target: targets.pause }) };
        yield { name: `resume from disk → first command, ${what}`, unit: 'ms', samples: round.resume, stages: medianStages(round.stages.resume), ...(targets.resume === undefined ? {} : { target: targets.resume }) };
        yield { name: `checkpoint on disk, ${what}`, unit: 'MiB', samples: round.checkpointMib, ...(targets.disk === undefined ? {} : { target: targets.disk }) };
      }
      yield* forks(fromDisk, quick ? 2 : 5);
      await fromDisk.remove();

      await kept.start();
      const round = await rounded(kept, touch(256), n);
      yield { name: 'resume in memory → first command, 256 MiB touched', unit: 'ms', samples: round.resume, target: 'p50 ≤ 30', stages: medianStages(round.stages.resume) };
    } finally {
      for (const server of [fromDisk, kept]) await server.remove().catch(() => {}); // the first has gone already where all went well
    }
  },
};

type Prepare = (sandbox: Sandbox) => Promise<unknown>;

function sizes(n: number): [string, Prepare, number, { pause?: string; resume?: string; disk?: string }][] {
  return [
    ['idle', async () => {}, n, { disk: '≤ 10' }],
    ['256 MiB touched', touch(256), n, { pause: 'p50 ≤ 1000', resume: 'p50 ≤ 700' }],
    ['1 GiB written to disk', (sandbox) => run(sandbox, 'head -c 1073741824 /dev/urandom > big'), Math.min(n, 3), {}],
  ];
}

/** A process that holds so much memory that no two pages are alike. */
function touch(mib: number): Prepare {
  return async (sandbox) => {
    await sandbox.commands.run(`python3 -c "import os, time; x = bytearray(os.urandom(${mib} << 20)); open('ready', 'w'); time.sleep(36000)"`, { background: true, timeout: 0 });
    await run(sandbox, 'until [ -e ready ]; do sleep 0.05; done');
  };
}

async function rounded(server: TestServer, prepare: Prepare, rounds: number): Promise<Round> {
  const sandbox = await Sandbox.create({ template: 'python', timeout: 3600 });
  await prepare(sandbox);
  const round: Round = { pause: [], resume: [], checkpointMib: [], stages: { pause: [], resume: [] } };
  for (let i = 0; i < rounds; i++) {
    const paused = await timed(() => server.call('POST', `/sandboxes/${sandbox.sandboxId}/pause`));
    if (paused.value.status !== 200) throw new Error(`pause: ${paused.value.text}`);
    round.pause.push(paused.ms);
    round.stages.pause.push(paused.value.headers['server-timing'] as string);
    round.checkpointMib.push(checkpointBytes(server.dataDir) / 1024 / 1024);
    const resumed = await timed(async () => {
      const answer = await server.call('POST', `/sandboxes/${sandbox.sandboxId}/resume`);
      if (answer.status !== 200) throw new Error(`resume: ${answer.text}`);
      await run(sandbox, 'true');
      return answer;
    });
    round.resume.push(resumed.ms);
    round.stages.resume.push(resumed.value.headers['server-timing'] as string);
  }
  await sandbox.kill({ wait: true });
  return round;
}

async function* forks(server: TestServer, rounds: number): AsyncGenerator<Figure> {
  const source = await Sandbox.create({ template: 'python', timeout: 3600 });
  await touch(100)(source);
  const samples: number[] = [];
  const headers: (string | null)[] = [];
  for (let i = 0; i < rounds; i++) {
    const { ms, value } = await timed(() => server.call('POST', `/sandboxes/${source.sandboxId}/fork`, { json: { count: 10 } }));
    if (value.status !== 201) throw new Error(`fork: ${value.text}`);
    samples.push(ms);
    headers.push(value.headers['server-timing'] as string);
    for (const { sandbox_id: id } of value.json.sandboxes) await server.call('DELETE', `/sandboxes/${id}`);
  }
  yield { name: 'fork of 10, 100 MiB touched', unit: 'ms', samples, target: '≤ 3000', stages: medianStages(headers) };
  await source.kill({ wait: true });
}

/** Of the newest one. Blocks, not lengths: the files have holes. */
function checkpointBytes(dataDir: string): number {
  const homes = readdirSync(join(dataDir, 'checkpoints')).map((name) => join(dataDir, 'checkpoints', name));
  const home = homes.sort((a, b) => statSync(a).ctimeMs - statSync(b).ctimeMs).at(-1)!;
  const files = readdirSync(home, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return files.reduce((sum, file) => sum + statSync(join(file.parentPath, file.name)).blocks * 512, 0);
}

async function run(sandbox: Sandbox, cmd: string): Promise<void> {
  const { exitCode, stderr } = await sandbox.commands.run(cmd, { timeout: 300 });
  if (exitCode !== 0) throw new Error(`${cmd}: ${stderr}`);
}
