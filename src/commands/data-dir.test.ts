import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { announceServer, claimDataDir, dataFiles, ensureDataDir, lockDataDir, OperatorError, runningServer, withdrawServer, writeWhole } from './data-dir.ts';

const root = mkdtempSync(join(tmpdir(), 'paddock-commands-'));
after(() => rmSync(root, { recursive: true }));

function directory(): string {
  return mkdtempSync(join(root, 'data-'));
}

/** Another process that takes the lock and keeps it. */
async function holder(dataDir: string): Promise<ReturnType<typeof spawn>> {
  const code = `const { lockDataDir } = await import(${JSON.stringify(import.meta.resolve('./data-dir.ts'))}); globalThis.lock = lockDataDir(${JSON.stringify(dataDir)}); console.log('held'); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return child;
}

test('two processes cannot have one data directory, and SIGKILL leaves no stale lock', async () => {
  const dataDir = directory();
  const child = await holder(dataDir);
  assert.equal(lockDataDir(dataDir), null);
  assert.throws(() => claimDataDir(dataDir), (error: unknown) => error instanceof OperatorError && error.message.includes(dataDir) && error.message.includes('paddock stop'));
  child.kill('SIGKILL');
  await once(child, 'exit');
  using lock = lockDataDir(dataDir);
  assert.notEqual(lock, null);
});

test('a lock that was given back can be taken again', () => {
  const dataDir = directory();
  lockDataDir(dataDir)![Symbol.dispose]();
  using lock = lockDataDir(dataDir);
  assert.notEqual(lock, null);
});

test('a server is known by its process, not by a number that another one has now', () => {
  const dataDir = directory();
  assert.equal(runningServer(dataDir), null);
  announceServer(dataDir);
  assert.equal(runningServer(dataDir)?.pid, process.pid);
  const file = dataFiles(dataDir).running;
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), startedTicks: '1' }));
  assert.equal(runningServer(dataDir), null);
  for (const text of ['', '{', '{"pid":1,"startedTicks":"1"}', '{"pid":"x"}', 'null']) {
    writeFileSync(file, text);
    assert.equal(runningServer(dataDir), null, text);
  }
  withdrawServer(dataDir);
  withdrawServer(dataDir);
});

test('the data directory is for its owner only; a path that cannot be is a sentence', () => {
  const dataDir = join(directory(), 'a/b');
  ensureDataDir(dataDir);
  assert.equal(statSync(dataDir).mode & 0o777, 0o700);
  const file = join(dataDir, 'file');
  writeWhole(file, 'x', 0o600);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.throws(() => ensureDataDir(join(file, 'below')), /^OperatorError: The data directory .* cannot be made/);
});
