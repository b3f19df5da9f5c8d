import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { sandboxOfThisFile } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { sleep } from '../harness/wait.ts';
import { quantile, short } from './pace.ts';

// One sandbox does its worst; the commands of another must not take more than twice as long.

const server = serverOfThisFile();
const neighbour = sandboxOfThisFile();
const samples = short ? 100 : 500;
/** Below this a doubling is noise of the machine that runs the test. */
const floorMs = 60;

const attacks: readonly [name: string, attack: (sandbox: Sandbox) => Promise<unknown>][] = [
  ['a fork bomb', (sandbox) => sandbox.commands.run('f() { f | f & }; while :; do f; sleep 2; done', { background: true, timeout: 0 })],
  ['an output flood', (sandbox) => Promise.all([1, 2].map(() => sandbox.commands.run('yes 0123456789012345678901234567890123456789', { background: true, timeout: 0 })))],
  ['loops on every core', (sandbox) => sandbox.commands.run('for i in $(seq $(nproc)); do while :; do :; done & done; wait', { background: true, timeout: 0 })],
  ['a disk filler', (sandbox) => sandbox.commands.run('while :; do head -c 1G /dev/zero > f; sync; done', { background: true, timeout: 0 })],
];

async function commandTimes(count: number): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const started = performance.now();
    assert.equal((await neighbour().commands.run('echo here')).stdout, 'here\n');
    times.push(performance.now() - started);
  }
  return times;
}

for (const [name, attack] of attacks) {
  test(`a neighbour's commands stay within twice their time during ${name}`, { timeout: 600_000 }, async (t) => {
    await commandTimes(20);
    const baseline = quantile(await commandTimes(samples), 0.99);
    const attacker = await Sandbox.create();
    try {
      await attack(attacker);
      await sleep(2000);
      const during = quantile(await commandTimes(samples), 0.99);
      t.diagnostic(`p99 ${baseline.toFixed(1)} ms alone, ${during.toFixed(1)} ms during ${name}`);
      assert.ok(during <= 2 * Math.max(baseline, floorMs / 2), `p99 rose from ${baseline.toFixed(1)} to ${during.toFixed(1)} ms`);
    } finally {
      await attacker.kill({ wait: true });
    }
    assert.equal((await server.call('GET', '/health')).status, 200);
    await sleep(1000);
  });
}
