import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { count, counting } from '../harness/pauses.ts';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually } from '../harness/wait.ts';
import { short } from './pace.ts';

const cycles = short ? 12 : 100;

for (const [where, settings] of [['in memory', {}], ['on disk', { PADDOCK_KEPT_MEMORY: '0' }]] as const) {
  const server = serverOfThisFile(settings);

  test(`a counting process paused and resumed ${cycles} times, kept ${where}, continues its count, and no write between is lost`, { timeout: 1_800_000 }, async () => {
    process.env['DECLAW_DOMAIN'] = `127.0.0.1:${server.port}`;
    process.env['DECLAW_API_KEY'] = server.apiKey;
    const sandbox = await counting({ timeout: 3600 });
    const written = new Map<string, string>();
    let last = await count(sandbox);
    for (let cycle = 0; cycle < cycles; cycle++) {
      const name = `/home/user/f${cycle % 17}`;
      const bytes = randomBytes(1 + Math.floor(Math.random() * 300_000));
      await sandbox.files.write(name, bytes);
      written.set(name, createHash('sha256').update(bytes).digest('hex'));
      await sandbox.pause();
      if (cycle % 10 === 9) {
        await server.crash();
        await server.start();
      }
      await sandbox.resume();
      const now = await count(sandbox);
      assert.ok(now >= last, `${now} after ${last} in cycle ${cycle}`);
      last = now;
    }
    const sums = (await output(sandbox, `sha256sum ${[...written.keys()].join(' ')}`)).trim().split('\n').map((line) => line.split(/\s+/));
    assert.deepEqual(Object.fromEntries(sums.map(([sum, name]) => [name, sum])), Object.fromEntries(written));
    await eventually(() => readdirSync(join(server.dataDir, 'checkpoints')).length === 1);
    await sandbox.kill({ wait: true });
    await eventually(() => readdirSync(join(server.dataDir, 'checkpoints')).length === 0);
  });
}
