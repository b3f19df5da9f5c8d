import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, realpathSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { BuildFailure } from '../../src/core/templates/build-host.ts';
import { Internet } from '../../src/egress/testing/internet.ts';
import { isAlive } from '../harness/machine.ts';
import { BuildLaboratory, isWhiteout, listing } from './build-laboratory.ts';
import { fails, team } from './laboratory.ts';

// A step runs a stranger's program as root. Nothing that it leaves may make the host do anything with its own files.

const laboratory = new BuildLaboratory();
let outside: string;

before(async () => {
  await laboratory.open();
  outside = join(laboratory.dataDir, 'outside');
  mkdirSync(outside);
  writeFileSync(join(outside, 'secret'), 'of the host');
  chmodSync(outside, 0o755);
});

after(async () => {
  const left = await laboratory.close();
  assert.deepEqual([left, laboratory.complaints], [[], []]);
});

afterEach(async () => {
  await laboratory.destroyAll();
  for (const digest of await laboratory.host.installedTemplates()) await laboratory.host.uninstallTemplate(digest);
  await laboratory.host.removeLayers(new Set());
  assert.deepEqual(laboratory.layerNames, []);
  assert.deepEqual([readFileSync(join(outside, 'secret'), 'utf8'), readdirSync(outside)], ['of the host', ['secret']]);
});

/** Files of a tree with a text in them; links are not followed. */
function filesHolding(tree: string, text: string): string[] {
  return spawnSync('grep', ['--recursive', '--files-with-matches', '--fixed-strings', '--devices=skip', text, tree], { encoding: 'utf8' }).stdout.split('\n').filter((line) => line !== '');
}

test('attack: links to the host in the place of what the host looks for', async () => {
  const step = await laboratory.step(laboratory.onBase);
  await laboratory.run(
    step,
    `rm -rf /tmp /run/lock /etc/resolv.conf /etc/hostname /etc/machine-id /var/lib/dbus /srv
    ln -s ${outside} /tmp; ln -s ${outside} /run/lock; ln -s ${outside} /srv; ln -s ${outside} /var/lib/dbus
    for name in resolv.conf hostname machine-id hosts; do ln -sf ${outside}/secret /etc/$name; done
    ln -sfn ${outside} /usr/bin/sudo; touch /.paddock/x; ln -s ${outside} /.paddock/y; mv /.paddock /moved`,
  );
  const layer = await laboratory.seal(step);
  const names = listing(laboratory.tree(layer)).filter((line) => line.includes(outside));
  assert.deepEqual(names, [`moved/y l 777 0:0 1 ${outside}`, `run/lock l 777 0:0 1 ${outside}`, `srv l 777 0:0 1 ${outside}`, `usr/bin/sudo l 777 0:0 1 ${outside}`, `var/lib/dbus l 777 0:0 1 ${outside}`]);
  assert.deepEqual(filesHolding(laboratory.tree(layer), 'of the host'), []);
  const sandbox = await laboratory.sandbox(laboratory.over(laboratory.onBase, layer));
  assert.equal(await laboratory.run(sandbox, 'cat /srv/secret /run/lock/secret 2>&1 | grep -c "No such file"; cat /etc/hostname'), `2\nsbx-${sandbox.id.slice(0, 8)}`);
  assert.equal(await laboratory.run(await laboratory.step(laboratory.over(laboratory.onBase, layer)), 'cat /srv/secret 2>&1 | grep -c "No such file"'), '1');
});

test('attack: devices, sockets and set-user-id programs', async () => {
  const step = await laboratory.step(laboratory.onBase);
  await laboratory.run(
    step,
    `mknod /disk b 254 0; mknod /null c 1 3; mknod /gone c 0 0; mkfifo /pipe
    perl -e 'use IO::Socket::UNIX; IO::Socket::UNIX->new(Local => "/socket", Listen => 1)'
    cp /usr/bin/perl /become; chmod 6755 /become; chown 0:0 /become; chmod 6755 /become`,
  );
  const layer = await laboratory.seal(step);
  const found = listing(laboratory.tree(layer));
  assert.deepEqual(found.filter((line) => /^\S+ [^fdl] /.test(line)), [], 'neither devices nor sockets');
  assert.ok(found.includes('become f 6755 0:0 1'));
  // Nobody but root of the host gets as far as the program.
  assert.throws(() => execFileSync('setpriv', ['--reuid', '65534', '--regid', '65534', '--clear-groups', 'sh', '-c', 'exec "$0" -e 1', join(laboratory.tree(layer), 'become')], { stdio: 'pipe' }), /Permission denied/);
});

test('attack: marks that an overlay would obey', async () => {
  const step = await laboratory.step(laboratory.onBase);
  const names = ['trusted.overlay.opaque', 'trusted.overlay.redirect', 'trusted.overlay.metacopy', 'user.overlay.opaque'];
  const said = await laboratory.run(step, `mkdir /d; touch /d/.wh.passwd /d/.wh..wh..opq; for n in ${names.join(' ')}; do perl -e '$p = "/d"; $n = $ARGV[0]; $v = "y"; print syscall(188, $p, $n, $v, 1, 0), " "' $n; done`);
  assert.equal(said, '-1 -1 -1 -1');
  const layer = await laboratory.seal(step);
  const sandbox = await laboratory.sandbox(laboratory.over(laboratory.onBase, layer));
  assert.equal(await laboratory.run(sandbox, 'ls -A /d | xargs; head -c 4 /etc/passwd'), '.wh..wh..opq .wh.passwd\nroot');
});

test('attack: a tree that is too deep to handle fails its own build, and only that', async () => {
  const step = await laboratory.step(laboratory.onBase);
  await laboratory.run(step, `perl -e 'for (1..30) { mkdir "d" x 200; chdir "d" x 200 or die }' 2>&1`);
  await laboratory.run(step, `cd /srv; perl -e 'for (1..30) { mkdir "d" x 200; chdir "d" x 200 or die "$!" }'`);
  await assert.rejects(laboratory.seal(step), (reason) => reason instanceof BuildFailure && reason.code === 'build_failed' && /and 3000 are the most that a layer takes/.test(reason.message));
  assert.deepEqual(laboratory.guests, []);
  assert.deepEqual(laboratory.layerNames, []);
});

test('attack: names that are no text', async () => {
  const step = await laboratory.step(laboratory.onBase);
  await laboratory.run(step, `cd /srv; printf x > "$(printf 'a\\nb')"; printf y > "$(printf '\\377\\376')"; mkdir -- -rf; printf z > "./-rf/--help"; mkdir "$(printf '\\377d')"; touch "$(printf '\\377d/\\377f')"; ln "$(printf '\\377\\376')" "$(printf '\\377 2')"`);
  const layer = await laboratory.seal(step);
  const sandbox = await laboratory.sandbox(laboratory.over(laboratory.onBase, layer));
  assert.equal(await laboratory.run(sandbox, `cd /srv; cat "$(printf 'a\\nb')" "$(printf '\\377\\376')" "$(printf '\\377 2')" ./-rf/--help; find . | wc -l`), 'xyyz9');
});

test('attack: a step that does not want to end', async () => {
  const step = await laboratory.step(laboratory.onBase);
  await laboratory.run(step, `printf '#!/bin/sh\\ntrap "" TERM INT HUP\\nwhile :; do sleep 1; done\\n' > /usr/bin/sync; chmod 755 /usr/bin/sync; echo kept > /srv/kept`);
  await laboratory.start(step, `trap '' TERM INT HUP; setsid sh -c 'while :; do echo x >> /srv/loop; done' & while :; do :; done`);
  await laboratory.run(step, 'while [ ! -s /srv/loop ]; do sleep 0.02; done');
  const layer = await laboratory.seal(step);
  assert.equal(isAlive(step.ref.pid), false);
  assert.equal(readFileSync(join(laboratory.tree(layer), 'srv/kept'), 'utf8'), 'kept\n');
});

test('attack: a step that has used up its processes, memory and disk can be sealed', async () => {
  const step = await laboratory.step(laboratory.onBase, { pids: 64, diskMb: 60 });
  await laboratory.start(step, 'while :; do sleep 1000 & done');
  await laboratory.run(step, 'head -c 100000000 /dev/zero > /srv/full; true');
  const layer = await laboratory.seal(step);
  assert.ok(layer.bytes > 30_000_000 && layer.bytes < 60_000_000, String(layer.bytes));
});

test('attack: a step that takes its own root apart does not keep the next guest from booting', async () => {
  const step = await laboratory.step(laboratory.onBase);
  await laboratory.run(step, 'chmod 000 / /etc /usr; rm -rf /etc /home /var /tmp /run /dev/shm /.paddock 2>/dev/null; true');
  const layer = await laboratory.seal(step);
  const tree = laboratory.tree(layer);
  assert.ok(isWhiteout(join(tree, 'home')) && isWhiteout(join(tree, 'var')));
  const sandbox = await laboratory.sandbox(laboratory.over(laboratory.onBase, layer));
  assert.equal(await laboratory.run(sandbox, 'id -u; cat /etc/hostname'), `0\nsbx-${sandbox.id.slice(0, 8)}`);
  await laboratory.layer(laboratory.over(laboratory.onBase, layer), 'echo more > /more');
});

test('attack: a layer does not carry the token, name or machine id of its step', async () => {
  const step = await laboratory.step(laboratory.onBase);
  const machine = await laboratory.run(step, 'cat /etc/machine-id; echo x > /srv/x');
  const tree = laboratory.tree(await laboratory.seal(step));
  for (const text of [step.token, step.id, step.id.slice(0, 8), machine]) assert.deepEqual(filesHolding(tree, text), []);
});

test('attack: a step reaches what its policy allows, and nothing else', async () => {
  const internet = await Internet.open(`${process.pid.toString(16).padStart(4, '0').slice(-4)}4b1d`);
  try {
    await internet.serve(7000, (socket) => socket.end('reached'));
    const { id, token, identity } = laboratory.someone();
    const policy = { allow: [], deny: [{ kind: 'all' as const, text: '0.0.0.0/0' }] };
    const ref = await laboratory.host.provisionStep({ root: laboratory.onBase, limits: laboratory.limits, identity, teamId: team, network: policy }, AbortSignal.timeout(60_000));
    const step = { id, token, ref };
    const attempt = `timeout 5 cat < /dev/tcp/${internet.host(10)}/7000 2>&1 | tail -1`;
    assert.doesNotMatch(await laboratory.run(step, attempt), /reached/);
    await laboratory.host.setNetwork(id, { allow: [], deny: [] });
    assert.equal(await laboratory.run(step, attempt), 'reached');
  } finally {
    await internet.close();
  }
});

test('steps that are left when a host closes are ended', async () => {
  const step = await laboratory.step(laboratory.onBase);
  const sandbox = await laboratory.create();
  await laboratory.host.close();
  assert.equal(isAlive(step.ref.pid), false);
  assert.equal(isAlive(sandbox.ref.pid), true);
  await laboratory.open();
  assert.deepEqual(laboratory.guests, []);
});

test('nothing is begun when the disk of the data directory is nearly full', async () => {
  const place = realpathSync(mkdtempSync(join(tmpdir(), 'paddock-small-')));
  const [image, mount] = [join(place, 'image'), join(place, 'data')];
  writeFileSync(image, '');
  truncateSync(image, 4 * 2 ** 30);
  mkdirSync(mount);
  execFileSync('mkfs.ext4', ['-q', '-F', '-m', '0', image]);
  execFileSync('mount', ['-o', 'loop', image, mount]);
  mkdirSync(join(mount, 'paddock'));
  const small = new BuildLaboratory({}, join(mount, 'paddock'));
  try {
    await small.open();
    small.images.add('image', '1', async () => undefined);
    const step = await small.step(small.onBase);
    await small.run(step, 'head -c 900000000 /dev/urandom > /srv/x');
    execFileSync('fallocate', ['-l', '1200M', join(mount, 'filler')]);
    // There is room to go on, but not for a copy of what the step wrote.
    await assert.rejects(small.seal(step), fails('no_space', /What the step wrote takes \d+ MiB, and the disk of the server has \d+ MiB left and keeps 2048 MiB free/));
    assert.deepEqual(small.layerNames, []);
    execFileSync('fallocate', ['-l', '2100M', join(mount, 'filler')]);
    await assert.rejects(small.step(small.onBase), fails('no_space', /What the step writes cannot be kept: the disk of the server has \d+ MiB left/));
    await assert.rejects(small.import('image'), fails('no_space', /The image cannot be kept/));
    assert.deepEqual([small.layerNames, small.guests], [[], []]);
  } finally {
    assert.deepEqual(await small.close(), []);
    execFileSync('umount', [mount]);
    rmSync(place, { recursive: true });
  }
});
