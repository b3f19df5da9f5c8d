import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type CgroupVersion, childCgroups, detectCgroupVersion, openCgroup } from './cgroup.ts';

const version = detectCgroupVersion();
const name = `paddock-test-${process.pid}`;

/** Every place where a v2 hierarchy with at least the core files is mounted, and the v1 layout where the machine has it. */
const layouts: { label: string; version: CgroupVersion; root: string; dirs: string[] }[] = [
  ...(version === 1
    ? [{ label: 'v1', version: 1 as const, root: '/sys/fs/cgroup', dirs: readdirSync('/sys/fs/cgroup').map((dir) => join('/sys/fs/cgroup', dir)).filter((dir) => existsSync(join(dir, 'cgroup.procs'))) }]
    : []),
  ...['/sys/fs/cgroup', '/sys/fs/cgroup/unified']
    .filter((root) => existsSync(join(root, 'cgroup.controllers')))
    .map((root) => ({ label: `v2 at ${root}`, version: 2 as const, root, dirs: [root] })),
];

async function spinner(dirs: readonly string[]): Promise<ChildProcess> {
  const child = spawn('bash', ['-c', 'read; while :; do :; done'], { stdio: ['pipe', 'ignore', 'inherit'] });
  for (const dir of dirs) {
    // cpuset groups take no process before they have been given processors.
    for (const file of ['cpuset.cpus', 'cpuset.mems']) if (existsSync(join(dir, name, file))) writeFileSync(join(dir, name, file), readFileSync(join(dir, file)));
    writeFileSync(join(dir, name, 'cgroup.procs'), String(child.pid));
  }
  child.stdin?.end('go\n');
  return child;
}

function cpuTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

for (const layout of layouts) {
  test(`a group is frozen, thawed, listed and removed (${layout.label})`, async () => {
    for (const dir of layout.dirs) mkdirSync(join(dir, name));
    const cgroup = openCgroup(name, layout.version, layout.root);
    const child = await spinner(layout.dirs);
    try {
      assert.deepEqual(cgroup.pids(), [child.pid]);
      if (layout.root === '/sys/fs/cgroup') assert.ok(childCgroups('', layout.version).has(name));
      await cgroup.freeze();
      const before = cpuTicks(child.pid!);
      await sleep(150);
      assert.equal(cpuTicks(child.pid!), before, 'a frozen process uses no CPU');
      cgroup.thaw();
      await sleep(150);
      assert.ok(cpuTicks(child.pid!) > before, 'a thawed process goes on');
    } finally {
      cgroup.thaw();
      child.kill('SIGKILL');
      await once(child, 'exit');
      await cgroup.remove();
    }
    for (const dir of layout.dirs) assert.ok(!existsSync(join(dir, name)));
    await cgroup.remove(); // removing what is gone succeeds
    assert.deepEqual(cgroup.pids(), []);
  });
}

test('figures of a group are those of its processes', async () => {
  const layout = layouts[0]!;
  for (const dir of layout.dirs) mkdirSync(join(dir, name));
  const cgroup = openCgroup(name, layout.version, layout.root);
  const child = await spinner(layout.dirs);
  try {
    await sleep(200);
    const { cpuMicros, memoryBytes, oomKills } = cgroup.stats();
    assert.ok(cpuMicros > 20_000, `${cpuMicros} µs of CPU`);
    assert.ok(memoryBytes >= 0 && memoryBytes < 64 * 1024 * 1024, `${memoryBytes} bytes`);
    assert.equal(oomKills, 0);
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
    await cgroup.remove();
  }
});
