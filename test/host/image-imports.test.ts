import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { chmod, chown, mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../../src/core/errors.ts';
import { BuildFailure, type RootLayers } from '../../src/core/templates/build-host.ts';
import { mountsBelow } from '../harness/machine.ts';
import { BuildLaboratory, filesOf, listing, plainConfig } from './build-laboratory.ts';
import { fails, Laboratory } from './laboratory.ts';

// Images as the lowest layer of a root. Where they come from is a source of the test's own, which writes real trees.

const laboratory = new BuildLaboratory();

before(() => laboratory.open());

after(async () => {
  const left = await laboratory.close();
  assert.deepEqual([left, laboratory.complaints], [[], []]);
});

afterEach(async () => {
  await laboratory.destroyAll();
  for (const digest of await laboratory.host.installedTemplates()) await laboratory.host.uninstallTemplate(digest);
  await laboratory.host.removeLayers(new Set());
  assert.deepEqual(laboratory.layerNames, []);
  laboratory.images.unpacked = 0;
});

/** A handful of programs with what they need, and nothing else: no /proc, /dev, /tmp, users or home. */
function programs(...names: string[]): (tree: string) => Promise<void> {
  return async (tree) => {
    const { rootfs } = laboratory.host.templates.find('base') as unknown as { rootfs: string };
    const libraries = execFileSync('chroot', [rootfs, 'sh', '-c', `ldd ${names.map((name) => `/usr/bin/${name}`).join(' ')} | grep -o "/[^ ]*so[^ ]*" | sort -u`], { encoding: 'utf8' }).trim().split('\n');
    for (const file of [...names.map((name) => `/usr/bin/${name}`), ...libraries]) {
      await mkdir(join(tree, dirname(file)), { recursive: true });
      execFileSync('cp', ['--dereference', execFileSync('chroot', [rootfs, 'realpath', file], { encoding: 'utf8' }).trim().replace(/^/, rootfs), join(tree, file)]);
    }
    await symlink('usr/bin', join(tree, 'bin'));
    execFileSync('ln', ['-sf', 'bash', join(tree, 'usr/bin/sh')]);
  };
}

function on(layer: { id: string }): RootLayers {
  return { base: null, layers: [layer.id] };
}

test('a bare image boots, takes steps, and its sandboxes have what they need', async () => {
  laboratory.images.add('bare', '1', programs('bash', 'cat', 'ls', 'id', 'sync', 'stat', 'mkdir', 'touch', 'mount'));
  const { layer, config, digest } = await laboratory.import('bare');
  assert.deepEqual(config, { ...plainConfig, env: { FROM: 'bare' } });
  assert.equal(digest, `sha256:${'1'.padStart(64, '0')}`);
  const alone = await laboratory.sandbox(on(layer));
  assert.deepEqual(mountsBelow(join(laboratory.dataDir, 'roots')), [], 'one tree needs no mount');
  assert.equal(await laboratory.run(alone, 'id -u; echo x > /tmp/x; cat /tmp/x /proc/sys/kernel/hostname > /dev/null && echo fine; [ -e /dev/null ] && [ -d /home/user ] && cat /etc/passwd'), '0\nfine\nroot:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash');
  const before = listing(laboratory.tree(layer));
  assert.equal(await laboratory.run(alone, 'echo mine > /usr/bin/cat; echo y > /new; ls /new'), '/new');
  assert.deepEqual(listing(laboratory.tree(layer)), before);

  const step = await laboratory.step(on(layer));
  assert.equal(await laboratory.run(step, 'echo built > /built; mkdir /srv; id -un', 'user'), '/bin/bash: line 1: /built: Permission denied\nmkdir: cannot create directory \'/srv\': Permission denied\nuser');
  assert.equal(await laboratory.run(step, 'echo built > /built; echo kept > /tmp/kept'), '');
  const second = await laboratory.seal(step);
  const names = listing(laboratory.tree(second)).map((line) => line.split(' ')[0]);
  assert.deepEqual(names.filter((name) => !name!.startsWith('home') && !name!.startsWith('root')), ['built', 'etc', 'etc/group', 'etc/passwd', 'run', 'tmp', 'tmp/kept', 'usr', 'usr/bin', 'var', 'var/tmp']);
  const both = await laboratory.sandbox({ base: null, layers: [layer.id, second.id] });
  assert.equal(await laboratory.run(both, 'cat /built /tmp/kept'), 'built\nkept');
  const ref = await laboratory.save(both, false);
  assert.equal(await laboratory.run(await laboratory.restore(ref, both), 'cat /built'), 'built');
});

test('an image without a single program boots, and a step in it can be sealed', async () => {
  laboratory.images.add('empty', '2', async () => undefined);
  const { layer } = await laboratory.import('empty');
  const step = await laboratory.step(on(layer));
  await laboratory.host.guest(step.id).files.write('/greeting', 'root', Buffer.from('hello'), AbortSignal.timeout(10_000));
  assert.equal(readFileSync(join(laboratory.tree(await laboratory.seal(step)), 'greeting'), 'utf8'), 'hello');
});

test('an image that is here is not fetched again, not even by the next server, until its layer is removed', async () => {
  laboratory.images.add('once', '3', filesOf({ 'a/b': 'c' }));
  const first = await laboratory.import('once');
  assert.deepEqual(await laboratory.import('once'), first);
  await laboratory.host.close();
  await laboratory.open();
  assert.deepEqual(await laboratory.import('once'), first);
  assert.equal(laboratory.images.unpacked, 1);
  await laboratory.host.removeLayers(new Set());
  assert.deepEqual(readdirSync(join(laboratory.layersDir, 'images')), []);
  assert.deepEqual((await laboratory.import('once')).layer.id, first.layer.id);
  assert.equal(laboratory.images.unpacked, 2);
});

test('who asks for the same image at the same time shares the work, and one who leaves does not end it', async () => {
  const lines: string[] = [];
  const going = Promise.withResolvers<void>();
  laboratory.images.add('shared', '4', async (tree, signal) => {
    await going.promise;
    signal.throwIfAborted();
    await filesOf({ file: 'x' })(tree);
  });
  const leaver = new AbortController();
  const left = laboratory.import('shared', {}, leaver.signal);
  while (laboratory.images.unpacked === 0) await sleep(1);
  const others = [0, 1].map(() => laboratory.import('shared', { onProgress: (line) => lines.push(line) }));
  await sleep(50);
  leaver.abort(new PaddockError('conflict', 'left'));
  await assert.rejects(left, /left/);
  going.resolve();
  const [one, other] = await Promise.all(others);
  assert.deepEqual(one, other);
  assert.equal(laboratory.images.unpacked, 1);
  assert.deepEqual(lines, Array(2).fill('the same image is being unpacked for another build'));
});

test('an import that everybody has left, or that fails, leaves nothing, and the next one works', async () => {
  let signalled: AbortSignal | undefined;
  laboratory.images.add('slow', '5', async (tree, signal) => {
    signalled = signal;
    await filesOf({ part: 'x' })(tree);
    await sleep(60_000, undefined, { signal });
  });
  const leaver = new AbortController();
  const left = Promise.allSettled([laboratory.import('slow', {}, leaver.signal), laboratory.import('slow', {}, leaver.signal)]);
  while (signalled === undefined) await sleep(5);
  leaver.abort(new PaddockError('conflict', 'left'));
  assert.deepEqual((await left).map((each) => each.status), ['rejected', 'rejected']);
  assert.ok(signalled.aborted);
  assert.deepEqual(laboratory.layerNames, []);

  const broken = new BuildFailure('image_unsafe', 'an entry leads out of the image');
  laboratory.images.add('slow', '5', async (tree) => {
    await filesOf({ part: 'x' })(tree);
    throw broken;
  });
  await assert.rejects(laboratory.import('slow'), (reason) => reason === broken);
  assert.deepEqual(laboratory.layerNames, []);
  laboratory.images.add('slow', '5', filesOf({ whole: 'x' }));
  assert.ok(existsSync(join(laboratory.tree((await laboratory.import('slow')).layer), 'whole')));
});

test('an image that is larger than its asker may have is refused also when it is here', async () => {
  laboratory.images.add('large', '6', async (tree) => writeFile(join(tree, 'file'), Buffer.alloc(5 << 20, 1)));
  await laboratory.import('large');
  await assert.rejects(laboratory.import('large', { maxBytes: 1 << 20 }), (reason) => reason instanceof BuildFailure && reason.code === 'image_too_large' && /takes 6 MiB unpacked, and 1 MiB are the most/.test(reason.message));
});

test('attack: names of an image that lead to the host are not followed', async () => {
  const outside = join(laboratory.dataDir, 'outside');
  await mkdir(outside);
  await writeFile(join(outside, 'agent'), 'host');
  await chmod(outside, 0o700);
  laboratory.images.add('hostile', '7', async (tree) => {
    for (const name of ['.paddock', 'tmp', 'proc', 'sys', 'dev', 'run']) await symlink(outside, join(tree, name));
    await programs('bash', 'cat', 'ls')(tree);
  });
  const { layer } = await laboratory.import('hostile');
  assert.deepEqual(listing(outside), ['agent f 644 0:0 1']);
  assert.equal(readFileSync(join(outside, 'agent'), 'utf8'), 'host');
  assert.match(listing(laboratory.tree(layer)).join('\n'), /^\.paddock d 755 0:0 3\n\.paddock\/agent f 755 0:0 1\n\.paddock\/volumes d 755 0:0 2$/m);
  const sandbox = await laboratory.sandbox(on(layer));
  assert.equal(await laboratory.run(sandbox, 'cd / && /usr/bin/ls -d tmp/.X11-unix proc/self dev/null; cat /run/agent 2>&1'), `dev/null\nproc/self\ntmp/.X11-unix\ncat: /run/agent: No such file or directory`);
  const step = await laboratory.step(on(layer));
  assert.equal(await laboratory.run(step, `cat ${outside}/agent 2>&1`), `cat: ${outside}/agent: No such file or directory`);
  await laboratory.seal(step);
  assert.deepEqual(listing(outside), ['agent f 644 0:0 1']);
  rmSync(outside, { recursive: true });
});

test('attack: devices, other people\'s set-user-id files and marks of overlays in an image', async () => {
  laboratory.images.add('devices', '8', async (tree) => {
    execFileSync('mknod', [join(tree, 'disk'), 'b', '254', '0']);
    execFileSync('mknod', [join(tree, 'gone'), 'c', '0', '0']);
    await writeFile(join(tree, 'suid'), '');
    await chown(join(tree, 'suid'), 0, 0);
    await chmod(join(tree, 'suid'), 0o4755);
  });
  const { layer } = await laboratory.import('devices');
  assert.deepEqual(listing(laboratory.tree(layer)).filter((line) => /^(disk|gone|suid)/.test(line)), ['suid f 4755 0:0 1']);
  const modes = execFileSync('stat', ['-c', '%a %U', laboratory.layersDir, laboratory.dataDir, join(laboratory.dataDir, 'roots')], { encoding: 'utf8' });
  assert.equal(modes, '700 root\n700 root\n700 root\n', 'nobody else on the host gets at it');
});

test('a server without a source of images says so', async () => {
  const plain = new Laboratory();
  try {
    await plain.open();
    await assert.rejects(plain.host.importImage({ reference: 'x', allowPaths: false, maxBytes: 1, onProgress: () => {} }, AbortSignal.timeout(1000)), fails('unprocessable', /cannot fetch images/));
  } finally {
    assert.deepEqual(await plain.close(), []);
  }
});
