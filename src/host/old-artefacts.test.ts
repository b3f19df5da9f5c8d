import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { removeOldArtefacts } from './old-artefacts.ts';

const [current, kept, old] = ['a', 'b', 'c'].map((letter) => letter.repeat(64)) as [string, string, string];
const nothing = { templates: new Set<string>(), agents: new Set<string>(), runscs: new Set<string>() };
const dir = mkdtempSync(join(tmpdir(), 'paddock-old-'));
after(() => rmSync(dir, { recursive: true, force: true }));

beforeEach(() => {
  for (const name of readdirSync(dir)) rmSync(join(dir, name), { recursive: true });
  for (const [place, field] of [['agent', 'sha'], ['runsc', 'sha256'], ['unpacker', 'sha'], ['templates/base', 'digest']] as const) {
    for (const digest of [current, kept, old]) {
      mkdirSync(join(dir, place, digest), { recursive: true });
      writeFileSync(join(dir, place, digest, 'file'), 'x');
    }
    writeFileSync(join(dir, place, 'current.json'), JSON.stringify({ [field]: current }));
  }
});

const left = (place: string): string[] => readdirSync(join(dir, place)).sort();

test('what is current, and what is needed, stays', async () => {
  const needed = { templates: new Set([kept]), agents: new Set([kept]), runscs: new Set([kept]) };
  assert.equal(await removeOldArtefacts(dir, needed, 0), 5);
  for (const place of ['agent', 'runsc', 'templates/base']) assert.deepEqual(left(place), [current, kept, 'current.json'].sort(), place);
  assert.deepEqual(left('unpacker'), [current, 'current.json'].sort());
  assert.equal(await removeOldArtefacts(dir, needed, 0), 0);
});

test('what was made a moment ago stays: its set-up may not have come to its end', async () => {
  assert.equal(await removeOldArtefacts(dir, nothing), 0);
  assert.equal(left('agent').length, 4);
});

test('other things in the directory, and templates that were never finished, stay', async () => {
  mkdirSync(join(dir, 'templates/never', old), { recursive: true });
  mkdirSync(join(dir, 'templates/base/notes'));
  await removeOldArtefacts(dir, nothing, 0);
  assert.deepEqual(left('templates/never'), [old]);
  assert.deepEqual(left('templates/base'), [current, 'current.json', 'notes'].sort());
});

test('beside a set-up nothing is removed, and the reason is said', async () => {
  const holder = spawn('flock', [dir, 'sh', '-c', 'echo held; cat'], { stdio: ['pipe', 'pipe', 'inherit'] });
  await new Promise((resolve) => holder.stdout.once('data', resolve));
  await assert.rejects(removeOldArtefacts(dir, nothing, 0), /a set-up is at work/);
  assert.equal(left('agent').length, 4);
  holder.stdin.end();
  await new Promise((resolve) => holder.once('exit', resolve));
});
