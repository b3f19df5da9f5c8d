import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { access, copyFile, cp, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { readJson } from '../../scripts/setup/files.mjs';
import { acquireLock } from '../../scripts/setup/lock.mjs';
import { places as placesOf, repository } from '../../scripts/setup/places.mjs';

const places = placesOf();
let scratch = '';
before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'paddock-setup-'));
});
after(() => rm(scratch, { recursive: true, force: true }));

/** A directory of artefacts in which everything is made but what `except` names; templates and runsc are only pointed to. */
async function artefacts(name, except) {
  const directory = join(scratch, name);
  for (const artefact of [
    'runsc/current.json',
    'agent/current.json',
    'unpacker/current.json',
    ...['base', 'python', 'node'].map((template) => `templates/${template}/current.json`),
  ]) {
    if (artefact.startsWith(except)) continue;
    await mkdir(join(directory, artefact, '..'), { recursive: true });
    await copyFile(join(places.artefacts, artefact), join(directory, artefact));
  }
  return directory;
}

/** Runs a program to its end. */
function finish(program, args, env = {}) {
  return new Promise((resolve) => {
    const started = performance.now();
    const child = spawn(program, args, { env: { ...process.env, ...env } });
    const said = { stdout: '', stderr: '' };
    child.stdout.on('data', (chunk) => (said.stdout += chunk));
    child.stderr.on('data', (chunk) => (said.stderr += chunk));
    child.on('close', (code) => resolve({ ...said, code, milliseconds: performance.now() - started }));
  });
}
const run = (args, env) => finish(process.execPath, [join(repository, 'scripts/run.mjs'), ...args], env);

test('a second set-up does nothing and says nothing', async () => {
  const { code, stdout, stderr } = await run(['setup'], { PADDOCK_ARTEFACTS_DIR: places.artefacts });
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: '', stderr: '' });
});

test('two set-ups at once do the work once', async () => {
  const directory = await artefacts('at-once', 'agent');
  const both = await Promise.all([1, 2].map(() => run(['setup'], { PADDOCK_ARTEFACTS_DIR: directory })));
  assert.deepEqual(
    both.map(({ code }) => code),
    [0, 0],
    both.map(({ stderr }) => stderr).join('\n'),
  );
  assert.equal(both.filter(({ stderr }) => stderr.includes('✓ Building the agent')).length, 1);
  const { path, sha, version } = await readJson(join(directory, 'agent/current.json'));
  assert.equal(path, join(directory, 'agent', sha, 'agent'));
  assert.equal(version, sha.slice(0, 12));
  await access(path);
});

test('a set-up waits for the one that holds the lock and says so', async () => {
  const directory = await artefacts('waits', 'agent');
  const release = acquireLock(directory, assert.fail);
  const waiting = run(['setup'], { PADDOCK_ARTEFACTS_DIR: directory });
  const timer = setTimeout(release, 1500);
  const { code, stderr, milliseconds } = await waiting;
  clearTimeout(timer);
  assert.equal(code, 0, stderr);
  assert.ok(milliseconds > 1000);
  assert.ok(stderr.includes(`Another set-up is at work in ${directory}; waiting for it to finish.`), stderr);
});

test('PADDOCK_RUNSC is taken over under its hash, and left for Debian’s when it is unset', async () => {
  const directory = await artefacts('own-runsc', 'runsc');
  const { path } = await readJson(join(places.runsc, 'current.json'));
  const own = { PADDOCK_ARTEFACTS_DIR: directory, PADDOCK_RUNSC: path };
  assert.equal((await run(['setup'], own)).code, 0);
  const current = await readJson(join(directory, 'runsc/current.json'));
  assert.equal(current.path, join(directory, 'runsc', current.sha256, 'runsc'));
  assert.equal(current.source.path, path);
  assert.equal((await stat(current.path)).mode & 0o777, 0o755);
  assert.equal((await run(['setup'], own)).stderr, '');
  const { code, stderr } = await run(['setup'], { PADDOCK_ARTEFACTS_DIR: directory, PADDOCK_RUNSC: '' });
  assert.equal(code, 0, stderr);
  const debian = await readJson(join(directory, 'runsc/current.json'));
  assert.equal(debian.source.kind, 'debian');
  assert.match(debian.version, /^0\.0~20\d{6}/);
});

test('a PADDOCK_RUNSC that is no runsc is refused with a sentence and exit code 1', async () => {
  const directory = await artefacts('wrong-runsc', 'runsc');
  const missing = await run(['setup'], { PADDOCK_ARTEFACTS_DIR: directory, PADDOCK_RUNSC: '/does/not/exist' });
  assert.deepEqual(
    [missing.code, missing.stderr],
    [1, 'paddock: PADDOCK_RUNSC names /does/not/exist, which is not a file: correct the path or unset it.\n'],
  );
  const wrong = await run(['setup'], { PADDOCK_ARTEFACTS_DIR: directory, PADDOCK_RUNSC: '/bin/true' });
  assert.equal(wrong.code, 1);
  assert.match(
    wrong.stderr,
    /\npaddock: \/bin\/true is not a runsc with the systrap platform: set PADDOCK_RUNSC to a runsc binary of 2023 or newer\.\n$/,
  );
  assert.doesNotMatch(wrong.stderr, /^\s+at /m);
  assert.deepEqual(await readdir(join(directory, 'runsc')), []);
});

test('a data directory that set-up makes is for root only', async () => {
  const directory = join(await artefacts('mode', 'nothing'), 'data');
  await run(['setup'], { PADDOCK_DATA_DIR: directory, PADDOCK_ARTEFACTS_DIR: join(scratch, 'mode') });
  for (const path of [directory, join(scratch, 'mode', 'templates')]) assert.equal((await stat(path)).mode & 0o777, 0o700);
});

test('an unknown command is refused with the ones there are', async () => {
  assert.deepEqual((({ code, stderr }) => ({ code, stderr }))(await run(['strat'])), {
    code: 1,
    stderr: 'paddock: There is no command "strat": use start, test, soak, bench or setup.\n',
  });
});

/** A repository of its own with a program in place of the server. */
async function repositoryWith(program) {
  const directory = await mkdtemp(join(scratch, 'repository-'));
  for (const part of ['scripts', 'templates', 'bin', 'agent', 'unpacker', 'package.json', 'package-lock.json'])
    await cp(join(repository, part), join(directory, part), { recursive: true });
  await symlink(join(repository, 'node_modules'), join(directory, 'node_modules'));
  await mkdir(join(directory, 'src'));
  await writeFile(join(directory, 'src/main.ts'), program);
  return directory;
}

test('npm start hands its arguments, exit code and each signal once to the server', async () => {
  const directory = await repositoryWith(`
    let count: number = 0;
    process.on('SIGINT', () => { count += 1; setTimeout(() => { console.log('signals', count); process.exit(7); }, 300); });
    console.log('ready', process.argv.slice(2).join(' '));
    setInterval(() => {}, 1000);`);
  const child = spawn(process.execPath, [join(directory, 'scripts/run.mjs'), 'start', '--port', '1'], {
    env: { ...process.env, PADDOCK_ARTEFACTS_DIR: places.artefacts },
  });
  let output = '';
  child.stderr.on('data', (chunk) => (output += chunk));
  child.stdout.on('data', (chunk) => {
    output += chunk;
    // As a terminal and npm do between them.
    if (String(chunk).includes('ready')) for (let i = 0; i < 2; i++) child.kill('SIGINT');
  });
  const code = await new Promise((resolve) => child.on('close', resolve));
  assert.deepEqual({ code, output }, { code: 7, output: 'ready start --port 1\nsignals 1\n' });
});

test('the launcher works through a link and says what to do before set-up', async () => {
  const directory = await repositoryWith("console.log(process.argv.slice(2).join(' '));");
  const link = join(scratch, 'paddock');
  await symlink(join(directory, 'bin/paddock'), link);
  assert.equal((await finish(link, ['keys', 'list one'])).stdout, 'keys list one\n');
  await rm(join(directory, 'node_modules'));
  const { code, stderr } = await finish(link, ['keys']);
  assert.deepEqual({ code, stderr }, { code: 1, stderr: `paddock: not set up yet: run npm start in ${directory} first\n` });
});
