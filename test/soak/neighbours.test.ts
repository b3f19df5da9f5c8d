import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { attacks } from '../harness/attacks.ts';
import { sandboxOfThisFile } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { sleep, within } from '../harness/wait.ts';
import { quantile, short } from './pace.ts';

// One sandbox does its worst; another goes on. How much longer its commands take is measured by the bench, on a machine
// that does nothing else.

const server = serverOfThisFile();
const neighbour = sandboxOfThisFile();
const samples = short ? 100 : 500;
/** No command may take this long: its neighbour would have been shut out. */
const shutOutMs = 10_000;

for (const { name, start } of attacks) {
  test(`a neighbour goes on working during ${name}`, { timeout: 600_000 }, async (t) => {
    const attacker = await Sandbox.create();
    const times: number[] = [];
    try {
      await start(attacker);
      await sleep(2000);
      for (let i = 0; i < samples; i++) {
        const started = performance.now();
        const { stdout } = await within(shutOutMs, 'a command of the neighbour', neighbour().commands.run('echo here'));
        assert.equal(stdout, 'here\n');
        times.push(performance.now() - started);
      }
    } finally {
      await attacker.kill({ wait: true });
    }
    t.diagnostic(`p50 ${quantile(times, 0.5).toFixed(1)} ms, p99 ${quantile(times, 0.99).toFixed(1)} ms`);
    assert.equal((await server.call('GET', '/health')).status, 200);
    assert.equal(await neighbour().isRunning(), true);
  });
}
