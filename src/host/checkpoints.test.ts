import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../core/errors.ts';
import { Checkpoints } from './checkpoints.ts';
import { silentLog } from './log.ts';
import { parseManifest, type Manifest } from './manifest.ts';

const home = mkdtempSync(join(tmpdir(), 'paddock-checkpoints-'));
const dir = join(home, 'checkpoints');
const checkpoints = new Checkpoints(dir, silentLog);
after(async () => {
  await checkpoints.close();
  rmSync(home, { recursive: true });
});

const facts = { runtime: 'gvisor', build: 'b'.repeat(64), agentProtocol: 2, agent: 'a'.repeat(64), template: 't'.repeat(32), memoryBytes: 10, pausedForMs: 3 } as const;

async function make(content: Record<string, string> = { 'pages.img': 'memory', 'checkpoint.img': 'kernel' }): Promise<string> {
  const id = randomUUID();
  const draft = await checkpoints.begin(id, 1000);
  for (const [name, text] of Object.entries(content)) writeFileSync(join(draft.dir, name), text);
  await draft.finish(facts);
  return id;
}

function manifestOf(id: string): Manifest {
  return parseManifest(readFileSync(join(dir, id, 'manifest.json'), 'utf8'))!;
}

async function untilHashed(id: string): Promise<void> {
  for (let i = 0; i < 200 && manifestOf(id).files.some((file) => file.sha256 === null); i++) await sleep(10);
}

function fails(code: string, text: RegExp): (reason: unknown) => boolean {
  return (reason) => reason instanceof PaddockError && reason.code === code && text.test(reason.message);
}

test('a finished checkpoint is found, says what it is, and gets its hashes', async () => {
  const id = await make();
  assert.deepEqual((await checkpoints.list()).find((ref) => ref.id === id), { id, ...facts, bytes: 12 });
  assert.equal(statSync(dir).mode & 0o777, 0o700);
  assert.equal(statSync(join(dir, id)).mode & 0o777, 0o700);
  await untilHashed(id);
  assert.deepEqual(manifestOf(id).files, [
    { name: 'checkpoint.img', size: 6, sha256: createHash('sha256').update('kernel').digest('hex') },
    { name: 'pages.img', size: 6, sha256: createHash('sha256').update('memory').digest('hex') },
  ]);
  const { manifest } = await checkpoints.open(id);
  await checkpoints.verify(manifest);
});

test('one that is being written is not there yet, and leaves nothing when it is given up', async () => {
  const id = randomUUID();
  const draft = await checkpoints.begin(id, 1000);
  writeFileSync(join(draft.dir, 'pages.img'), 'half');
  assert.ok(!(await checkpoints.list()).some((ref) => ref.id === id));
  await assert.rejects(checkpoints.open(id), fails('not_found', /no longer on this server/));
  await draft.discard();
  assert.deepEqual(readdirSync(dir).filter((name) => name.startsWith(id)), []);
});

test('giving up works for a finished one too', async () => {
  const id = randomUUID();
  const draft = await checkpoints.begin(id, 1000);
  writeFileSync(join(draft.dir, 'pages.img'), 'whole');
  await draft.finish(facts);
  await draft.discard();
  assert.deepEqual(readdirSync(dir).filter((name) => name.startsWith(id)), []);
});

test('missing and shortened files are damage, found before anything is started', async () => {
  const missing = await make();
  rmSync(join(dir, missing, 'pages.img'));
  await assert.rejects(checkpoints.open(missing), fails('unprocessable', /damaged: pages.img is missing/));
  const short = await make();
  truncateSync(join(dir, short, 'pages.img'), 3);
  await assert.rejects(checkpoints.open(short), fails('unprocessable', /damaged: pages.img has 3 bytes instead of 6/));
});

test('a changed file of the right size is found by its hash, by a server that did not write it', async () => {
  const id = await make();
  await untilHashed(id);
  writeFileSync(join(dir, id, 'pages.img'), 'memorY');
  const later = new Checkpoints(dir, silentLog);
  const { manifest } = await later.open(id);
  await assert.rejects(later.verify(manifest), fails('unprocessable', /damaged: the content of pages.img has changed/));
  await assert.rejects(later.verify(manifest), fails('unprocessable', /damaged/)); // not taken for sound the second time
  await later.close();
});

test('an unreadable manifest is damage, and does not hide the others', async () => {
  const good = await make();
  const bad = await make();
  await untilHashed(bad);
  writeFileSync(join(dir, bad, 'manifest.json'), '{"version": 7}');
  await assert.rejects(checkpoints.open(bad), fails('unprocessable', /its manifest cannot be read/));
  assert.ok((await checkpoints.list()).some((ref) => ref.id === good));
});

test('a manifest names no file outside its directory', () => {
  const manifest = { version: 1, ref: { id: 'x', ...facts, bytes: 1 }, createdAt: 1, files: [{ name: 'pages.img', size: 1, sha256: null }] };
  assert.notEqual(parseManifest(JSON.stringify(manifest)), null);
  for (const name of ['../pages.img', '/etc/passwd', 'a/b', '']) {
    assert.equal(parseManifest(JSON.stringify({ ...manifest, files: [{ name, size: 1, sha256: null }] })), null, name);
  }
  for (const text of ['', 'null', '[]', '{"version":1}', JSON.stringify({ ...manifest, files: [] }), JSON.stringify({ ...manifest, ref: {} })]) assert.equal(parseManifest(text), null, text);
});

test('a server that starts removes what was not finished and computes what is missing', async () => {
  const id = await make();
  await untilHashed(id);
  const manifest = manifestOf(id);
  writeFileSync(join(dir, id, 'manifest.json'), JSON.stringify({ ...manifest, files: manifest.files.map((file) => ({ ...file, sha256: null })) }));
  const unfinished = join(dir, `${randomUUID()}.partial`);
  mkdirSync(unfinished);
  writeFileSync(join(unfinished, 'pages.img'), 'half');
  const later = new Checkpoints(dir, silentLog);
  await later.recover();
  assert.ok(!existsSync(unfinished));
  await untilHashed(id);
  assert.deepEqual(manifestOf(id), manifest);
  await later.close();
});

test('removing removes all of it, twice as well as once', async () => {
  const id = await make();
  await checkpoints.remove(id);
  await checkpoints.remove(id);
  await checkpoints.remove('../../etc');
  assert.deepEqual(readdirSync(dir).filter((name) => name.startsWith(id)), []);
  await assert.rejects(checkpoints.open(id), fails('not_found', /no longer/));
});

test('what the disk has no room for is refused before anything is written', async () => {
  const id = randomUUID();
  await assert.rejects(checkpoints.begin(id, 2 ** 50), fails('no_space', /takes up to \d+ MiB .* has \d+ MiB left and keeps 2048 MiB free/));
  assert.deepEqual(readdirSync(dir).filter((name) => name.startsWith(id)), []);
});

test('only ids become directories', async () => {
  await assert.rejects(checkpoints.begin('../x', 1), fails('invalid_argument', /no id/));
  await assert.rejects(checkpoints.begin(`${randomUUID()}/..`, 1), fails('invalid_argument', /no id/));
});
