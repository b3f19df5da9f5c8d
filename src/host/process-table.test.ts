import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { isRunning, startTime } from './process-table.ts';

test('a process is known by pid and start time together', () => {
  const start = startTime(process.pid);
  assert.match(start ?? '', /^\d+$/);
  assert.ok(isRunning(process.pid, start!));
  assert.ok(!isRunning(process.pid, String(Number(start) + 1)), 'a reused pid is not the process');
});

test('a name full of parentheses and spaces does not confuse', async () => {
  const child = spawn('bash', ['-c', 'printf "a) Z (b" > /proc/self/comm; echo ready; read'], { stdio: ['pipe', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  assert.match(startTime(child.pid!) ?? '', /^\d+$/);
  child.stdin.end();
  await once(child, 'exit');
  assert.equal(startTime(child.pid!), null);
});

test('a zombie is dead', async () => {
  // The parent never waits for its child, which stays a zombie for as long as the parent sleeps.
  const parent = spawn('bash', ['-c', 'sleep 0.05 & echo $!; exec sleep 5'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [data] = (await once(parent.stdout, 'data')) as [Buffer];
  const pid = Number(data.toString());
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(startTime(pid), null);
  parent.kill('SIGKILL');
});
