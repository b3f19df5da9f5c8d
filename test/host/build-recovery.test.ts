import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { LayerRef } from '../../src/core/templates/build-host.ts';
import { loopsBelow, mountsBelow, processesOf } from '../harness/machine.ts';
import { repository } from '../harness/server.ts';
import { within } from '../harness/wait.ts';
import { BuildLaboratory } from './build-laboratory.ts';

// What a host finds that was killed in the middle of a build.

let laboratory: BuildLaboratory;

beforeEach(() => {
  laboratory = new BuildLaboratory();
});

afterEach(async () => {
  assert.deepEqual(await laboratory.close(), []);
});

/** Lets a host come into this state, kills it, and opens the next one. */
async function afterKill(state: string, waitMs = 0): Promise<{ finished: LayerRef; template: string }> {
  const child = spawn(process.execPath, ['test/host/doomed-build.ts', laboratory.dataDir, state, String(waitMs)], { cwd: repository, stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await within(60_000, `a host in the state ${state}`, once(child.stdout, 'data'))) as [Buffer];
  child.kill('SIGKILL');
  await once(child, 'exit');
  await laboratory.open();
  return JSON.parse(line.toString()) as { finished: LayerRef; template: string };
}

/** Only what was finished is there, and it can be used. */
async function assertWhole({ finished, template }: { finished: LayerRef; template: string }, more: readonly string[] = []): Promise<void> {
  assert.deepEqual(laboratory.guests, []);
  assert.deepEqual(laboratory.layerNames, [finished.id, ...more].sort());
  assert.deepEqual(await laboratory.host.installedTemplates(), [template]);
  assert.deepEqual(mountsBelow(join(laboratory.dataDir, 'host', 'slots')).filter((point) => point.endsWith('/root')), []);
  const left = processesOf(laboratory.dataDir).filter(({ command }) => /^(cp|setpriv|rm|sync) /.test(command));
  assert.deepEqual(left, []);
  const sandbox = await laboratory.create(laboratory.host.templates.byDigest(template)!);
  assert.equal(await laboratory.run(sandbox, 'cat /srv/file; ls /srv/large 2>/dev/null'), 'finished');
  await laboratory.host.destroy(sandbox.id);
}

test('the guest of a step is ended, and finished layers stay', async () => {
  await assertWhole(await afterKill('step'));
});

for (const waitMs of [0, 100, 250, 500, 800]) {
  test(`a seal that began ${waitMs} ms ago leaves a whole layer or none`, async () => {
    const found = await afterKill('seal', waitMs);
    const others = laboratory.layerNames.filter((name) => name !== found.finished.id);
    assert.ok(others.length <= 1 && others.every((name) => /^[0-9a-f]{64}$/.test(name)), others.join(' '));
    await assertWhole(found, others);
    const root = laboratory.over(laboratory.onBase, found.finished);
    if (others.length === 1) assert.equal(await laboratory.run(await laboratory.sandbox({ base: root.base, layers: [...root.layers, ...others] }), 'stat -c %s /srv/large'), '300000000');
  });
}

test('an image that was being unpacked is removed, and its name is not known', async () => {
  const found = await afterKill('import');
  await assertWhole(found);
  assert.deepEqual(readdirSync(join(laboratory.layersDir, 'images')), []);
});

test('the mount of a template that a dead server was using serves the next one', async () => {
  await assertWhole(await afterKill('sandbox'));
});

test('a template that was half installed or half removed is gone', async () => {
  const found = await afterKill('step');
  const roots = join(laboratory.dataDir, 'roots');
  await laboratory.host.close();
  mkdirSync(join(roots, 'a'.repeat(64), 'root'), { recursive: true });
  mkdirSync(join(roots, 'b.partial'));
  writeFileSync(join(roots, 'a'.repeat(64), 'manifest.json.123.partial'), '{');
  await laboratory.open();
  assert.deepEqual(readdirSync(roots), [found.template]);
  await assertWhole(found);
  assert.equal(loopsBelow(laboratory.dataDir).length, mountsBelow(join(laboratory.dataDir, 'host')).filter((point) => point.endsWith('/disk')).length);
});
