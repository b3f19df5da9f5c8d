import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { guestGroupsOf, guestProcessesOf, loopsBelow, mountsBelow, namespacesOf, residentBytes } from '../harness/machine.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually, sleep } from '../harness/wait.ts';
import { short } from './pace.ts';

const server = serverOfThisFile();
const cycles = short ? 60 : 300;
const concurrency = 10;
/** How often, on average, a guest is killed under its sandbox. */
const oneDeathIn = 10;

test(`${cycles} cycles of create, command and kill, ten at a time, while guests die and the server is killed once`, { timeout: 1_200_000 }, async (t) => {
  /** Containers whose death is our doing; who used one of them may fail, with the reason. */
  let deaths = 0;
  /** The cycle that is under way when the server is killed may fail: its calls are cut. */
  let crashes = 0;
  let crashing = false;
  const failures: string[] = [];
  const disturbed: string[] = [];
  let next = 0;

  const worker = async (): Promise<void> => {
    while (next < cycles) {
      const number = next++;
      const crashesBefore = crashes;
      const crashingBefore = crashing;
      let id = '';
      try {
        const sandbox = await Sandbox.create({ metadata: { cycle: String(number) }, timeout: 600 });
        id = sandbox.sandboxId;
        await sandbox.files.write('/tmp/number', `cycle ${number}`);
        const { stdout, exitCode } = await sandbox.commands.run('cat /tmp/number; head -c 100000 /dev/zero | tr "\\0" x');
        assert.deepEqual([exitCode, stdout.length, stdout.slice(0, 20)], [0, `cycle ${number}`.length + 100_000, `cycle ${number}${'x'.repeat(20)}`.slice(0, 20)]);
        assert.equal(await sandbox.kill({ wait: true }), true);
      } catch (reason) {
        const message = `cycle ${number} ${id}: ${(reason as Error).message}`;
        // The guest's death shows as 410 or, when it came before the kill, as a kill that found nothing to do.
        const ended = id === '' ? '' : await endReason(id);
        const ours = ['runtime_crashed', 'agent_lost'].includes(ended);
        const cut = crashingBefore || crashes > crashesBefore || crashing;
        (ours || cut ? disturbed : failures).push(`${message} (it ended by: ${ended || 'nothing'})`);
        if (id !== '' && cut) await eventually(async () => { await Sandbox.kill(id, { wait: true }); }, { withinMs: 30_000 });
      }
    }
  };

  const reaper = async (): Promise<void> => {
    while (next < cycles) {
      await sleep(randomInt(20, 400));
      const groups = guestGroupsOf(server.dataDir);
      const victim = groups[randomInt(0, Math.max(1, groups.length))];
      if (victim === undefined || deaths > next / oneDeathIn) continue;
      for (const pid of guestProcessesOf(server.dataDir, victim)) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch (reason) {
          if ((reason as NodeJS.ErrnoException).code !== 'ESRCH') throw reason;
        }
      }
      deaths++;
    }
  };

  const crasher = async (): Promise<void> => {
    await eventually(() => next >= cycles / 2, { withinMs: 1_000_000 });
    crashing = true;
    await server.crash();
    await server.start();
    crashes++;
    crashing = false;
  };

  const started = Date.now();
  await Promise.all([reaper(), crasher(), ...Array.from({ length: concurrency }, worker)]);
  t.diagnostic(`${cycles} cycles in ${((Date.now() - started) / 1000).toFixed(1)} s; ${deaths} guests killed; ${disturbed.length} cycles disturbed by that or by the crash`);
  assert.deepEqual(failures, []);
  assert.ok(deaths > 0);
  // The crash may cut every cycle that was under way, and those that began until the server was back.
  assert.ok(disturbed.length <= deaths + 4 * concurrency, disturbed.join('\n'));

  // What a client never heard of is alive after the crash, and known to the server.
  const { sandboxes } = await Sandbox.list();
  await Sandbox.killMany(sandboxes.map((each) => each.sandboxId), { wait: true });
  await eventually(() => assert.deepEqual(guestGroupsOf(server.dataDir), []));
  await eventually(() => {
    assert.ok(namespacesOf(server.dataDir).length <= 1 + 4, 'namespaces');
    assert.ok(mountsBelow(server.dataDir).length <= 8, 'mounts');
    assert.ok(loopsBelow(server.dataDir).length <= 4, 'loop devices');
  });
  assert.ok(residentBytes(server.pid) < 400 * 1024 * 1024, `the server has ${Math.round(residentBytes(server.pid) / 1024 / 1024)} MiB`);
  const { json } = await server.call('GET', '/sandboxes?state=creating,running,paused');
  assert.equal(json.total, 0);
});

/** Why a sandbox ended; empty when it has not, or when the server does not answer just now. */
async function endReason(id: string): Promise<string> {
  try {
    return await eventually(async () => (await server.call('GET', `/sandboxes/${id}`)).json.end_reason ?? '', { withinMs: 15_000 });
  } catch {
    return '';
  }
}
