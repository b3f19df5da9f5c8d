import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Sandbox } from '@declaw/sdk';
import { openCgroup } from '../../src/host/cgroup.ts';
import { TestServer } from '../../test/harness/server.ts';
import { eventually } from '../../test/harness/wait.ts';
import type { Figure, Scenario } from '../figures.ts';

const count = 10;
const templates = 3; // waiting guests are kept per template

/** What a sandbox costs while nobody uses it: running, and waiting frozen without identity. */
export const idle: Scenario = {
  name: 'idle',
  async *run({ quick }): AsyncGenerator<Figure> {
    const seconds = quick ? 5 : 20;
    const running = new TestServer();
    await running.start();
    try {
      const sandboxes = [];
      for (let i = 0; i < count; i++) sandboxes.push(await Sandbox.create({ timeout: 600 }));
      await sleep(2000);
      yield* costs('idle sandbox, running', running, count, seconds);
      await Promise.all(sandboxes.map((sandbox) => sandbox.kill({ wait: true })));
    } finally {
      await running.remove();
    }

    const waiting = new TestServer({ PADDOCK_WARM_GUESTS: '3' });
    await waiting.start();
    try {
      await eventually(async () => openCgroup(cgroupOf(waiting)).pids().length >= 3 * templates * 2, { withinMs: 60_000, everyMs: 200 });
      await sleep(5000);
      yield* costs('waiting guest, frozen', waiting, 3 * templates, seconds);
    } finally {
      await waiting.remove();
    }
  },
};

async function* costs(name: string, server: TestServer, guests: number, seconds: number): AsyncGenerator<Figure> {
  const cgroup = openCgroup(cgroupOf(server));
  const start = cgroup.stats();
  await sleep(seconds * 1000);
  const end = cgroup.stats();
  yield { name: `${name}: memory charged to its cgroup`, unit: 'MiB', samples: [end.memoryBytes / guests / 1024 / 1024], target: '≤ 20' };
  yield { name: `${name}: its processes' share of memory (PSS)`, unit: 'MiB', samples: [cgroup.pids().reduce((sum, pid) => sum + proportionalSetSize(pid), 0) / guests / 1024] };
  yield { name: `${name}: CPU`, unit: '% of a core', samples: [(end.cpuMicros - start.cpuMicros) / guests / seconds / 1e4] };
}

/** The parent of the guests' cgroups carries the instance's id, which is derived from the data directory. */
function cgroupOf(server: TestServer): string {
  return `paddock-${createHash('sha256').update(server.dataDir).digest('hex').slice(0, 8)}`;
}

/** Of a process, in KiB: pages that several share count in parts. See proc_pid_smaps(5). */
function proportionalSetSize(pid: number): number {
  return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0);
}
