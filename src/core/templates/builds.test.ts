import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../errors.ts';
import type { SandboxId, TeamId } from '../ids.ts';
import type { Principal } from '../principal.ts';
import { base, never, Server, until } from '../testing/server.ts';
import type { SpecInput } from './spec.ts';
import type { BuildId, BuildStatus, OwnTemplate, TemplateBuild } from './template.ts';

const run = (command: string) => ({ kind: 'run', command }) as const;

async function make(server: Server, spec: Partial<SpecInput> = {}, name = 'mine'): Promise<{ template: OwnTemplate; build: TemplateBuild }> {
  return server.templates.create(server.principal, { name, spec: { from: 'base', ...spec } });
}

async function over(server: Server, id: BuildId): Promise<TemplateBuild> {
  let build: TemplateBuild | null = null;
  await until('the build is over', async () => {
    build = await server.store.templates.findBuild(server.principal.teamId, id);
    return build !== null && (['ready', 'failed', 'cancelled'] as BuildStatus[]).includes(build.status);
  });
  return build!;
}

async function built(server: Server, spec: Partial<SpecInput> = {}, name = 'mine'): Promise<OwnTemplate> {
  const { build } = await make(server, spec, name);
  const ended = await over(server, build.id);
  assert.equal(ended.status, 'ready', ended.errorMessage ?? '');
  return server.templates.get(server.principal, name);
}

async function logOf(server: Server, build: TemplateBuild): Promise<string[]> {
  const lines: string[] = [];
  for await (const { stream, text } of server.templates.follow(build, never)) lines.push(`${stream}: ${text}`);
  return lines;
}

function code(expected: string, message?: RegExp) {
  return (error: unknown): boolean => error instanceof PaddockError && error.code === expected && (message === undefined || message.test(error.message));
}

/** Nothing of any build is left on the machine. */
async function assertClean(server: Server, guests: readonly SandboxId[] = []): Promise<void> {
  await until('the guests of builds are gone', () => [...server.host.guests.keys()].every((id) => guests.includes(id)));
}

describe('a build', () => {
  it('makes a template whose sandboxes have its environment, user, directory and sizes', async () => {
    await using server = await Server.start();
    const template = await built(server, {
      steps: [{ kind: 'env', key: 'COLOUR', value: 'red' }, { kind: 'user', name: 'app', sudo: true }, { kind: 'workdir', path: '/srv/app' }, run('print built')],
      vcpus: 2, memoryMb: 700, diskMb: 2000,
    });
    assert.equal(template.status, 'ready');
    const sandbox = await server.create({ templateName: 'mine', defaultUser: 'root' });
    assert.deepEqual(sandbox.limits, { vcpus: 2, memoryMb: 700, diskMb: 2000, pids: 1024 });
    assert.equal(sandbox.defaultUser, 'app');
    assert.deepEqual(sandbox.template.runtime, { workdir: '/srv/app', sudo: true });
    assert.deepEqual(server.host.specs.at(-1)?.identity.env, { LANG: 'C.UTF-8', COLOUR: 'red', DECLAW_SANDBOX: 'true', DECLAW_SANDBOX_ID: `sbx-${sandbox.shortId}` });
    const { pid } = await server.processes.startBackground(server.principal, { id: sandbox.id }, { cmd: 'cat', timeoutSeconds: 0, stdin: true }, never);
    assert.equal((await server.processes.listBackground(server.principal, { id: sandbox.id }, never)).find((each) => each.pid === pid)?.cwd, '/srv/app');
    // Also after a restart, and by the template's id.
    await server.restart();
    assert.equal((await server.sandboxes.get(server.principal, { id: sandbox.id })).template.runtime?.workdir, '/srv/app');
    assert.equal((await server.create({ templateName: `tpl-${template.id}` })).template.name, 'mine');
  });

  it('runs steps as the user, in the directory and with the environment so far, each in a guest of its own', async () => {
    await using server = await Server.start();
    await built(server, { steps: [run('print one'), { kind: 'env', key: 'A', value: '1' }, { kind: 'workdir', path: 'x' }, run('print two'), { kind: 'user', name: 'app', sudo: false }, run('print three')] });
    const specs = server.buildHost.steps.map(({ spec, guest }) => ({ layers: spec.root.layers.length, as: spec.identity.defaultUser, sudo: spec.identity.sudo, processes: [...guest.processes_.values()].map(({ spec: { user, cwd, env, argv } }) => [user, cwd, env?.['A'], argv?.at(-1)]) }));
    assert.deepEqual(specs, [
      { layers: 0, as: 'root', sudo: true, processes: [['root', '/', undefined, 'print one']] },
      { layers: 1, as: 'root', sudo: true, processes: [['root', '/', undefined, ''], ['root', '/x', '1', 'print two']] },
      { layers: 2, as: 'root', sudo: true, processes: [['root', '/', undefined, 'app']] },
      { layers: 3, as: 'app', sudo: false, processes: [['app', '/x', '1', 'print three']] },
    ]);
    for (const { spec } of server.buildHost.steps) assert.deepEqual(spec.identity.env, {}); // nothing of what comes later
    await assertClean(server);
  });

  it('is told of in a log that is followed live and read again afterwards, also after a restart', async () => {
    await using server = await Server.start();
    const { build } = await make(server, { steps: [run('print hello;err oops;sleep 100;print later')] });
    const live = await logOf(server, build);
    const wanted = ['system: build queued, waiting for dispatch', 'system: from the built-in template base', 'system: step 1/1: run print hello;err oops;sleep 100;print later', 'stdout: hellolater', 'stderr: oops', 'system: template ready'];
    assert.deepEqual(live, wanted);
    assert.deepEqual(await logOf(server, build), wanted);
    await server.restart();
    assert.deepEqual(await logOf(server, build), wanted);
    assert.deepEqual((await server.templates.lines(build, 2)).lines.map(({ text }) => text), ['oops', 'template ready']);
  });

  it('that is the same again touches no guest, and does again only what has changed', async () => {
    await using server = await Server.start();
    await built(server, { steps: [run('print a'), run('print b')] });
    assert.equal(server.buildHost.steps.length, 2);
    const before = await server.templates.get(server.principal, 'mine');
    const { build, begun } = await server.templates.rebuild(server.principal, 'mine');
    assert.ok(begun);
    assert.equal((await over(server, build.id)).status, 'ready');
    assert.equal(server.buildHost.steps.length, 2);
    assert.equal((await server.templates.get(server.principal, 'mine')).artefactId, before.artefactId);
    await built(server, { steps: [run('print a'), run('print c')] }, 'other');
    assert.deepEqual(server.buildHost.commands, ['print a', 'print b', 'print c']);
    assert.ok((await logOf(server, (await server.templates.builds(server.principal, 'other', 1))[0]!)).includes('system: step 1/2: run print a (as before)'));
  });

  it('builds a cached step again whose layer is gone', async () => {
    await using server = await Server.start();
    await built(server, { steps: [run('print a')] });
    await server.templates.delete(server.principal, 'mine');
    server.buildHost.installed.clear();
    server.buildHost.layers.clear();
    await built(server, { steps: [run('print a')] });
    assert.equal(server.buildHost.steps.length, 2);
  });

  it('begins with another template of the team, and inherits its surroundings', async () => {
    await using server = await Server.start();
    await built(server, { steps: [{ kind: 'env', key: 'A', value: '1' }, { kind: 'workdir', path: '/w' }, run('print a')] }, 'below');
    const template = await built(server, { from: 'below', steps: [run('print b')] });
    const artefact = await server.store.templates.artefact(template.artefactId!);
    assert.equal(artefact?.root.layers.length, 2);
    assert.deepEqual([artefact?.env['A'], artefact?.workdir], ['1', '/w']);
    assert.equal(artefact?.root.base, 'd'.repeat(64));
  });

  it('begins with an image, prepares it once, and takes its environment, user and directory', async () => {
    await using server = await Server.start({}, { imageAliases: { 'python:3.11': 'base', 'mine:1': 'oci:/srv/mine' }, logins: { 'registry.example': { username: 'u', password: 'p' } } });
    const image = server.buildHost.addImage('registry.example/team/app:1', { env: { PATH: '/opt/bin' }, user: 'www:www', workdir: '/www' });
    server.buildHost.addImage('oci:/srv/mine');
    const template = await built(server, { from: 'registry.example/team/app:1', steps: [run('print a')] });
    const artefact = await server.store.templates.artefact(template.artefactId!);
    assert.deepEqual([artefact?.root.base, artefact?.root.layers[0], artefact?.root.layers.length], [null, image.layer.id, 3]);
    assert.deepEqual([artefact?.env, artefact?.user, artefact?.sudo, artefact?.workdir], [{ PATH: '/opt/bin' }, 'www', false, '/www']);
    assert.deepEqual(server.buildHost.requests.map(({ reference, allowPaths, login }) => [reference, allowPaths, login?.username]), [['registry.example/team/app:1', false, 'u']]);
    await built(server, { from: 'registry.example/team/app:1', steps: [run('print b')] }, 'second');
    assert.equal(server.buildHost.steps.length, 3); // prepared once
    await built(server, { from: 'mine:1' }, 'third');
    assert.deepEqual([server.buildHost.requests.at(-1)?.reference, server.buildHost.requests.at(-1)?.allowPaths], ['oci:/srv/mine', true]);
    const aliased = await built(server, { from: 'python:3.11' }, 'fourth');
    assert.equal((await server.store.templates.artefact(aliased.artefactId!))?.root.base, 'd'.repeat(64));
  });
});

describe('a built-in template that is built when it is asked for first', () => {
  it('is asked for by a build upon it, which waits', async () => {
    await using server = await Server.start();
    server.offered.add('heavy');
    await assert.rejects(make(server, {}, 'heavy'), code('conflict', /built-in/));
    const { build } = await make(server, { from: 'heavy', steps: [run('print a')] });
    await until('it is asked for', () => server.pending.has('heavy'));
    assert.equal((await server.templates.build(server.principal, build.id)).status, 'building');
    server.builtIn.push({ ...base, id: 'tpl-heavy', name: 'heavy', digest: 'h'.repeat(64) });
    server.pending.delete('heavy');
    assert.equal((await over(server, build.id)).status, 'ready');
    assert.equal(server.buildHost.steps[0]?.spec.root.base, 'h'.repeat(64));
    assert.ok((await logOf(server, build)).includes('system: waiting for the built-in template heavy, which is being built'));
  });

  it('that cannot be had fails the build', async () => {
    await using server = await Server.start();
    server.offered.add('heavy');
    server.catalog.request = () => {
      throw new PaddockError('template_not_ready', 'the template heavy could not be built: no way to the archive');
    };
    const { build } = await make(server, { from: 'heavy' });
    assert.equal((await over(server, build.id)).errorMessage, 'template_gone: the template heavy could not be built: no way to the archive');
  });
});

describe('a failure of a build says its code and why', () => {
  const failures: [string, Partial<SpecInput>, (server: Server) => void, RegExp][] = [
    ['a step that exits', { steps: [run('print a'), run('exit 100')] }, () => undefined, /^step_failed: step 2\/2 failed after 0s: exited with code 100$/],
    ['a guest that dies', { steps: [run('sleep 5000')] }, (server) => void (server.buildHost.onStep = async ({ identity }) => void setTimeout(() => server.host.kill(identity.sandboxId, { reason: 'out_of_memory', detail: 'too much' }), 50)), /^step_failed: step 1\/1 failed after 0s: its guest ended/],
    ['no such user', { steps: [{ kind: 'user', name: '4711', sudo: false }, run('print a')] }, (server) => void (server.buildHost.onStep = async () => { throw new PaddockError('invalid_argument', 'no user 4711'); }), /^boot_failed: no user 4711$/],
    ['no room', { steps: [run('print a')] }, (server) => void (server.buildHost.onStep = async () => { throw new PaddockError('no_capacity', 'no memory left'); }), /^boot_failed: no memory left$/],
    ['a layer that cannot be kept', { steps: [run('print a')] }, (server) => void (server.buildHost.onSeal = async () => { throw new PaddockError('no_space', 'the disk is full'); }), /^build_failed: the disk is full$/],
    ['an image that is not there', { from: 'debian:12' }, () => undefined, /^image_pull_failed: debian:12: there is no such image$/],
    ['a root that cannot be installed', {}, (server) => void (server.buildHost.onInstall = async () => { throw new PaddockError('no_capacity', 'the disk is full'); }), /^snapshot_failed: the disk is full$/],
    ['a variable that has to be set', { steps: [{ kind: 'env', key: 'A', value: '${B:?say B}', word: true }] }, () => undefined, /^invalid_spec: step 1: B is not set: say B$/],
    ['a start command that ends badly', { startCommand: 'exit 3' }, () => undefined, /^start_cmd_failed: exited with code 3$/],
    ['a start command that ends while it is waited for', { startCommand: 'sleep 60;exit 4', readyCommand: 'exit 1' }, () => undefined, /^start_cmd_failed: exited with code 4$/],
    ['a ready command that never succeeds', { startCommand: 'cat', readyCommand: 'exit 7' }, () => undefined, /^ready_cmd_failed: not ready after \d+s: exited with code 7$/],
    ['a guest that cannot be saved', { startCommand: 'cat' }, (server) => void (server.host.onCheckpoint = async () => { throw new PaddockError('no_space', 'no disk left'); }), /^snapshot_failed: no disk left$/],
    ['a guest for the start command that does not boot', { startCommand: 'cat' }, (server) => void (server.host.onProvision = async () => { throw new PaddockError('no_capacity', 'no memory left'); }), /^boot_failed: no memory left$/],
    ['a build that takes too long', { steps: [run('sleep 60000')] }, () => undefined, /^timeout: the build took longer than 1 s/],
  ];
  for (const [what, spec, arrange, expected] of failures) {
    it(what, async () => {
      await using server = await Server.start({}, { buildTimeoutSeconds: 1 });
      arrange(server);
      const { build } = await make(server, spec);
      const ended = await over(server, build.id);
      assert.equal(ended.status, 'failed');
      assert.match(ended.errorMessage ?? '', expected);
      const template = await server.templates.get(server.principal, 'mine');
      assert.deepEqual([template.status, template.errorMessage], ['failed', ended.errorMessage]);
      assert.equal((await logOf(server, build)).at(-1), `system: ${ended.errorMessage}`);
      await assert.rejects(server.create({ templateName: 'mine' }), code('template_not_ready', /is failed/));
      await assertClean(server);
      assert.equal(server.host.saved.size, 0);
      // A failed one can be built again, and deleted.
      server.buildHost.onStep = server.buildHost.onSeal = server.buildHost.onInstall = server.host.onCheckpoint = server.host.onProvision = async () => undefined;
      await server.templates.delete(server.principal, 'mine');
      await until('nothing of it is installed', () => server.buildHost.installed.size === 0);
    });
  }
});

describe('a start command', () => {
  const spec = { steps: [{ kind: 'env', key: 'A', value: '1' } as const], startCommand: 'print up;cat', readyCommand: 'print ready' };

  it('runs already in every sandbox, whose identity and rules are its own', async () => {
    await using server = await Server.start();
    const template = await built(server, spec);
    assert.equal(server.host.saved.size, 1);
    const provisioned = server.host.specs.length;
    const [one, other] = [await server.create({ templateName: 'mine', envs: { B: '2' } }), await server.create({ templateName: 'mine' })];
    assert.equal(server.host.specs.length, provisioned);
    assert.equal(server.host.restored.length, 2);
    const [restored] = server.host.restored;
    assert.ok(restored !== undefined && !restored.sameSandbox);
    assert.equal(restored.identity.sandboxId, one.id);
    assert.deepEqual([restored.identity.env['A'], restored.identity.env['B']], ['1', '2']);
    assert.notEqual(restored.identity.agentToken, server.host.restored[1]?.identity.agentToken);
    for (const { id } of [one, other]) {
      const running = await server.processes.listBackground(server.principal, { id }, never);
      assert.deepEqual(running.map(({ cmd, running: runs }) => [cmd, runs]), [['cat', true]]); // the toy guest's copy of it
    }
    // Its checkpoint stays through the sweep of snapshots and restarts, and goes with the template.
    await server.restart();
    assert.equal(server.host.saved.size, 1);
    await server.create({ templateName: 'mine' });
    for (const each of (await server.sandboxes.list(server.principal, { states: ['running'], metadata: {}, limit: 10 })).items) await server.sandboxes.kill(server.principal, { id: each.id });
    await server.templates.delete(server.principal, template.name);
    await until('the checkpoint is gone', async () => (await server.templates.collect(), server.host.saved.size === 0));
    assert.equal(server.buildHost.installed.size, 0);
  });

  it('leaves the processes of the ready command behind', async () => {
    await using server = await Server.start();
    await built(server, spec);
    const [saved] = server.host.saved.values();
    assert.deepEqual([...saved!.guest.processes_.values()].map(({ spec: { cmd } }) => cmd), ['cat']);
  });

  it('may end well, as one does that leaves its program behind it', async () => {
    await using server = await Server.start();
    await built(server, { startCommand: 'exit 0' });
  });

  it('is refused with what a sandbox takes when the machine has no room', async () => {
    await using server = await Server.start();
    await built(server, spec);
    server.host.room = 1000;
    await assert.rejects(server.create({ templateName: 'mine' }), code('no_capacity'));
  });
});

describe('a build is cancelled', () => {
  const stages: [string, Partial<SpecInput>, (server: Server, reached: () => void) => void][] = [
    ['while the image is fetched', { from: 'debian:12' }, (server, reached) => void (server.buildHost.onImport = async (_request, signal) => { reached(); await sleep(10_000, undefined, { signal }); })],
    ['while a guest boots', { steps: [run('print a')] }, (server, reached) => void (server.buildHost.onStep = async (_spec, signal) => { reached(); await sleep(10_000, undefined, { signal }); })],
    ['while a step runs', { steps: [run('sleep 10000')] }, (server, reached) => void (server.buildHost.onStep = async () => void setTimeout(reached, 50))],
    ['while a layer is kept', { steps: [run('print a')] }, (server, reached) => void (server.buildHost.onSeal = async () => { reached(); await sleep(50); })],
    ['while the root is installed', {}, (server, reached) => void (server.buildHost.onInstall = async () => { reached(); await sleep(50); })],
    ['while the start command is waited for', { startCommand: 'cat', readyCommand: 'exit 1' }, (server, reached) => void (server.host.onProvision = async () => void setTimeout(reached, 50))],
    ['while it is saved', { startCommand: 'cat' }, (server, reached) => void (server.host.onCheckpoint = async () => { reached(); await sleep(50); })],
  ];
  for (const [when, spec, arrange] of stages) {
    it(when, async () => {
      await using server = await Server.start();
      const reached = Promise.withResolvers<void>();
      server.buildHost.addImage('debian:12');
      arrange(server, reached.resolve);
      const { build, template } = await make(server, spec);
      await reached.promise;
      await server.templates.cancel(server.principal, build.id);
      assert.equal((await server.templates.build(server.principal, build.id)).status, 'cancelled');
      assert.equal((await server.templates.get(server.principal, template.id)).status, 'failed');
      assert.match((await logOf(server, build)).at(-1)!, /^system: cancelled: the build was cancelled$/);
      await server.templates.cancel(server.principal, build.id); // a second time does nothing
      await assertClean(server);
      await server.templates.delete(server.principal, 'mine');
      await until('nothing is left', async () => (await server.templates.collect(), server.buildHost.installed.size === 0 && server.buildHost.layers.size === 0));
      const { size } = server.host.saved;
      await server.restart();
      assert.ok(size === 0 || server.host.saved.size === 0);
    });
  }

  it('while it waits for others', async () => {
    await using server = await Server.start({}, { buildsAtOnce: 1 });
    server.buildHost.onStep = (_spec, signal) => sleep(10_000, undefined, { signal });
    const first = await make(server, { steps: [run('print a')] }, 'first');
    const second = await make(server, { steps: [run('print b')] }, 'second');
    await until('the first runs', async () => (await server.templates.build(server.principal, first.build.id)).status === 'building');
    assert.equal((await server.templates.build(server.principal, second.build.id)).status, 'pending');
    await server.templates.cancel(server.principal, second.build.id);
    await logOf(server, second.build);
    await server.templates.cancel(server.principal, first.build.id);
    await logOf(server, first.build);
    server.buildHost.onStep = async () => undefined;
    await built(server, {}, 'third');
  });
});

describe('of several at once', () => {
  it('only so many of a team run or wait, and only so many templates are there', async () => {
    await using server = await Server.start({}, { maxTeamBuilds: 2, maxTemplates: 3 });
    server.buildHost.onStep = (_spec, signal) => sleep(10_000, undefined, { signal });
    const builds = [await make(server, { steps: [run('print a')] }, 'a'), await make(server, { steps: [run('print a')] }, 'b')];
    await assert.rejects(make(server, {}, 'c'), (error: unknown) => code('concurrency_limit', /2 builds of this team .* limit is 2/)(error) && (error as PaddockError).detail.reason === 'too_many_builds');
    for (const { build } of builds) await server.templates.cancel(server.principal, build.id);
    for (const { build } of builds) await logOf(server, build);
    await built(server, {}, 'c');
    await assert.rejects(make(server, {}, 'd'), (error: unknown) => code('concurrency_limit', /3 templates/)(error) && (error as PaddockError).detail.reason === 'too_many_templates');
  });

  it('with one name one is taken', async () => {
    await using server = await Server.start();
    const tries = await Promise.allSettled(Array.from({ length: 4 }, () => make(server)));
    assert.deepEqual(tries.map(({ status }) => status).sort(), ['fulfilled', 'rejected', 'rejected', 'rejected']);
    const { id } = await server.templates.get(server.principal, 'mine');
    for (const each of tries) if (each.status === 'rejected') assert.ok(code('conflict', new RegExp(`tpl-${id}`))(each.reason), String(each.reason));
  });

  it('of one template the one under way is returned', async () => {
    await using server = await Server.start();
    const template = await built(server, { steps: [run('print a')] });
    const rebuilds = await Promise.all([server.templates.rebuild(server.principal, template.id), server.templates.rebuild(server.principal, template.id)]);
    assert.deepEqual(rebuilds.map(({ begun }) => begun).sort(), [false, true]);
    assert.equal(rebuilds[0].build.id, rebuilds[1].build.id);
  });
});

describe('a template that is ready', () => {
  it('makes sandboxes while it is built again, from what the build before made', async () => {
    await using server = await Server.start();
    const template = await built(server, { steps: [run('print a')] });
    const old = (await server.store.templates.artefact(template.artefactId!))!;
    const before = await server.create({ templateName: 'mine' });
    // The layer is gone, so that the build has something to do.
    server.buildHost.onStep = (_spec, signal) => sleep(10_000, undefined, { signal });
    await server.store.layerCache.purge(Number.MAX_SAFE_INTEGER);
    const { build } = await server.templates.rebuild(server.principal, 'mine');
    await until('it is building', async () => (await server.templates.build(server.principal, build.id)).status === 'building');
    assert.equal((await server.templates.get(server.principal, 'mine')).status, 'ready');
    assert.equal((await server.create({ templateName: 'mine' })).template.digest, old.digest);
    await server.templates.cancel(server.principal, build.id);
    await logOf(server, build);
    assert.equal((await server.templates.get(server.principal, 'mine')).status, 'ready');
    server.buildHost.onStep = async () => undefined;
    const again = await server.templates.rebuild(server.principal, 'mine');
    assert.equal((await over(server, again.build.id)).status, 'ready');
    const now = await server.templates.get(server.principal, 'mine');
    assert.notEqual(now.artefactId, template.artefactId);
    // The old root stays for the sandboxes made from it, and goes after the last one.
    await server.templates.collect();
    assert.ok(server.buildHost.installed.has(old.digest));
    for (const { id } of (await server.sandboxes.list(server.principal, { states: ['running'], metadata: {}, limit: 10 })).items) await server.sandboxes.kill(server.principal, { id });
    await until('the old root is gone', async () => (await server.templates.collect(), !server.buildHost.installed.has(old.digest)));
    assert.equal(server.buildHost.installed.size, 1);
    assert.equal((await server.sandboxes.get(server.principal, { id: before.id })).template.digest, old.digest);
  });

  it('is not deleted while a sandbox, a paused one or a snapshot needs it, or it is built', async () => {
    await using server = await Server.start();
    await built(server);
    const { id } = await server.create({ templateName: 'mine', lifecycle: { onTimeout: 'pause', autoResume: false, maxLifetimeSeconds: null, autoDeleteSeconds: null } });
    const inUse = code('conflict', /in use/);
    await assert.rejects(server.templates.delete(server.principal, 'mine'), inUse);
    await server.sandboxes.pause(server.principal, { id });
    await assert.rejects(server.templates.delete(server.principal, 'mine'), inUse);
    await server.sandboxes.resume(server.principal, { id });
    const { snapshot } = await server.sandboxes.snapshots.create(server.principal, { id });
    await server.sandboxes.kill(server.principal, { id });
    await assert.rejects(server.templates.delete(server.principal, 'mine'), inUse);
    await server.sandboxes.snapshots.delete(server.principal, snapshot.id);
    server.buildHost.onInstall = () => sleep(100);
    await server.store.layerCache.purge(Number.MAX_SAFE_INTEGER);
    const digests = [...server.buildHost.installed.keys()];
    server.buildHost.installed.clear();
    const { build } = await server.templates.rebuild(server.principal, 'mine');
    await assert.rejects(server.templates.delete(server.principal, 'mine'), code('conflict', /being built/));
    await over(server, build.id);
    await server.templates.delete(server.principal, 'mine');
    await assert.rejects(server.templates.get(server.principal, 'mine'), code('not_found'));
    await until('it is uninstalled', async () => (await server.templates.collect(), !server.buildHost.installed.has(digests[0]!)));
  });

  it('is not deleted under a create that is under way', async () => {
    await using server = await Server.start();
    await built(server);
    server.host.onProvision = () => sleep(100);
    const creating = server.create({ templateName: 'mine' });
    await until('the guest is made', () => server.host.specs.length > 0);
    await assert.rejects(server.templates.delete(server.principal, 'mine'), code('conflict'));
    await creating;
  });

  it('is the team’s own: another team neither sees, uses, builds nor deletes it', async () => {
    await using server = await Server.start();
    const { build, template } = await make(server, { steps: [run('print secret')] });
    await over(server, build.id);
    const stranger: Principal = { teamId: 'another-team' as TeamId, keyId: 'k' };
    for (const attack of [
      server.templates.get(stranger, 'mine'), server.templates.get(stranger, template.id), server.templates.delete(stranger, template.id), server.templates.rebuild(stranger, template.id),
      server.templates.build(stranger, build.id), server.templates.cancel(stranger, build.id), server.templates.builds(stranger, template.id, 10),
    ]) await assert.rejects(attack, code('not_found'));
    assert.deepEqual(await server.templates.list(stranger), []);
    await assert.rejects(server.sandboxes.create(stranger, { ...(await import('../testing/server.ts')).createInput(), templateName: template.id }, never), code('not_found'));
    await assert.rejects(server.sandboxes.create(stranger, { ...(await import('../testing/server.ts')).createInput(), templateName: 'mine' }, never), code('not_found'));
    assert.equal(await server.store.layerCache.find(stranger.teamId, 'any', 0), null);
  });
});

describe('after the server has ended without a word', () => {
  it('a first build is failed, and nothing of it is left', async () => {
    await using server = await Server.start();
    server.buildHost.onStep = async ({ identity }) => void server.host.guests.set(identity.sandboxId, server.host.guests.get(identity.sandboxId)!);
    const { build } = await make(server, { steps: [run('print a'), run('sleep 60000')] });
    await until('the second step runs', () => server.buildHost.steps.length === 2);
    await sleep(300); // the log is written in batches
    await server.restart();
    const ended = await server.templates.build(server.principal, build.id);
    assert.deepEqual([ended.status, ended.errorMessage], ['failed', 'build_failed: the server was restarted while the template was being built; build it again']);
    assert.equal((await server.templates.get(server.principal, 'mine')).status, 'failed');
    assert.ok((await logOf(server, build)).at(-1)?.includes('the server was restarted'));
    await assertClean(server);
    // What was done stays done.
    const again = await server.templates.rebuild(server.principal, 'mine');
    await until('the second step runs again', () => server.buildHost.steps.length === 3);
    assert.equal(server.buildHost.commands.filter((each) => each === 'print a').length, 1);
    await server.templates.cancel(server.principal, again.build.id);
  });

  it('a rebuild is failed, and the template serves on; a checkpoint half-way is removed', async () => {
    await using server = await Server.start();
    await built(server, { startCommand: 'cat' });
    await server.store.layerCache.purge(Number.MAX_SAFE_INTEGER);
    server.buildHost.installed.clear(); // so that it is made anew
    server.host.onSaved = () => new Promise(() => undefined);
    const { build } = await server.templates.rebuild(server.principal, 'mine');
    await until('it is saved', () => server.host.saved.size === 2);
    server.host.onSaved = async () => undefined;
    await server.restart();
    assert.equal((await server.templates.build(server.principal, build.id)).status, 'failed');
    assert.equal((await server.templates.get(server.principal, 'mine')).status, 'ready');
    assert.equal(server.host.saved.size, 1);
    await server.create({ templateName: 'mine' });
  });

  it('an orderly stop fails them as well', async () => {
    const server = await Server.start();
    const { build } = await make(server, { steps: [run('sleep 60000')] });
    await until('the step runs', () => server.buildHost.steps.length === 1);
    await server.templates.stop();
    assert.match((await server.store.templates.findBuild(server.principal.teamId, build.id))?.errorMessage ?? '', /^build_failed: the server was stopped/);
    assert.equal(server.host.guests.size, 0);
    await server[Symbol.asyncDispose]();
  });
});

describe('a request is refused', () => {
  const refusals: [string, { name?: string; spec?: Partial<SpecInput> }, RegExp][] = [
    ['a name with odd characters', { name: 'a b' }, /^name must have 1 to 128 of the characters/],
    ['a name that leads somewhere', { name: 'a/../b' }, /^name must not have empty parts/],
    ['a name of the built-in family', { name: 'superserve/x' }, /^name must not begin with superserve\//],
    ['a name like an id', { name: 'tpl-01234567-0123-0123-0123-0123456789ab' }, /^name must not look like an id/],
    ['too many CPUs', { spec: { vcpus: 11 } }, /^vcpu must be a whole number from 1 to 10, not 11/],
    ['too little memory', { spec: { memoryMb: 1 } }, /^memory_mib must be a whole number from 128 to 20480, not 1/],
    ['too much disk', { spec: { diskMb: 200_000 } }, /^disk_mib must be a whole number from 128 to 102400, not 200000/],
    ['too many steps', { spec: { steps: Array.from({ length: 101 }, () => run('true')) } }, /^steps\[100\] is one too many: there are 101 steps/],
    ['a long command', { spec: { steps: [run('x'.repeat(65_537))] } }, /^steps\[0\]\.run takes 65537 bytes; the limit is 65536/],
    ['an odd variable', { spec: { steps: [{ kind: 'env', key: 'A-B', value: '' }] } }, /^steps\[0\]\.env\.key must be a name/],
    ['an odd user', { spec: { steps: [{ kind: 'user', name: 'Root', sudo: false }] } }, /^steps\[0\]\.user\.name must match/],
    ['NUL', { spec: { startCommand: 'a\0b' } }, /^start_cmd holds a NUL/],
    ['an image with spaces', { spec: { from: 'a b' } }, /^from must not have spaces/],
  ];
  for (const [what, { name = 'mine', spec = {} }, expected] of refusals) {
    it(what, async () => {
      await using server = await Server.start();
      await assert.rejects(make(server, spec, name), code('invalid_argument', expected));
    });
  }

  it('a built-in name, and a template that is not ready as the beginning', async () => {
    await using server = await Server.start();
    await assert.rejects(make(server, {}, 'base'), code('conflict', /built-in/));
    server.buildHost.onInstall = () => sleep(50);
    const { build } = await make(server, {}, 'below');
    await assert.rejects(make(server, { from: 'below' }), code('template_not_ready'));
    await assert.rejects(server.create({ templateName: 'below' }), code('template_not_ready', /is building/));
    await over(server, build.id);
  });
});
