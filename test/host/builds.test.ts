import assert from 'node:assert/strict';
import { existsSync, lstatSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { PaddockError } from '../../src/core/errors.ts';
import type { LayerRef } from '../../src/core/templates/build-host.ts';
import { mountsBelow } from '../harness/machine.ts';
import { eventually } from '../harness/wait.ts';
import { BuildLaboratory, isWhiteout, listing } from './build-laboratory.ts';
import { fails, type Subject } from './laboratory.ts';

// Steps of builds in real guests, and what becomes of what they wrote.

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
  assert.deepEqual(mountsBelow(join(laboratory.dataDir, 'roots')), []);
});

test('what a step writes, changes, moves and deletes is its layer', async () => {
  const { onBase } = laboratory;
  const layer = await laboratory.layer(
    onBase,
    `set -e
    mkdir -p /srv/app/sub; echo main > /srv/app/main; echo more >> /etc/debian_version
    chown 1000:1000 /srv/app/main; chmod 4755 /srv/app/main; chmod 3770 /srv/app/sub
    ln /srv/app/main /srv/app/again; ln -s /etc/passwd /srv/app/link; mkfifo /srv/app/pipe
    touch -d 2001-02-03T04:05:06Z /srv/app/sub; touch -h -d 2002-02-03T04:05:06Z /srv/app/link
    rm /usr/bin/nano; mv /usr/share/perl5 /usr/share/moved`,
  );
  const tree = laboratory.tree(layer);
  const entries = listing(tree).filter((line) => line.startsWith('srv/app'));
  assert.deepEqual(entries, ['srv/app d 755 0:0 3', 'srv/app/again f 4755 1000:1000 2', 'srv/app/link l 777 0:0 1 /etc/passwd', 'srv/app/main f 4755 1000:1000 2', 'srv/app/sub d 3770 0:0 2']);
  assert.equal(lstatSync(join(tree, 'srv/app/sub')).mtime.toISOString(), '2001-02-03T04:05:06.000Z');
  assert.equal(lstatSync(join(tree, 'srv/app/link')).mtime.toISOString(), '2002-02-03T04:05:06.000Z');
  assert.match(readFileSync(join(tree, 'etc/debian_version'), 'utf8'), /^\d+\.\d+\nmore\n$/);
  assert.ok(isWhiteout(join(tree, 'usr/bin/nano')) && isWhiteout(join(tree, 'usr/share/perl5')));
  assert.ok(existsSync(join(tree, 'usr/share/moved')), 'a directory that was moved is here with all that is in it');
  for (const own of ['.paddock', 'dev', 'proc', 'sys', 'etc/hostname', 'etc/hosts', 'etc/machine-id', 'etc/resolv.conf', 'run/paddock', 'usr/bin/sudo']) assert.equal(existsSync(join(tree, own)), false, own);

  const sandbox = await laboratory.sandbox(laboratory.over(onBase, layer));
  const seen = await laboratory.run(sandbox, 'cat /srv/app/main; stat -c "%a %u %h" /srv/app/main /srv/app/again; readlink /srv/app/link; tail -1 /etc/debian_version; ls /usr/bin/nano /usr/share/perl5 2>&1 | wc -l; ls /usr/share/moved | head -1; sudo -n id -u');
  const moved = await laboratory.run(await laboratory.create(), 'ls /usr/share/perl5 | head -1');
  assert.equal(seen, `main\n4755 1000 2\n4755 1000 2\n/etc/passwd\nmore\n2\n${moved}\n0`);
});

test('deletions reach through layers, and opaque directories hide what was below', async () => {
  const { onBase } = laboratory;
  const first = await laboratory.layer(onBase, 'mkdir /data; cd /data; echo 1 > stays; echo 1 > goes; echo 1 > again; mkdir replaced removed; touch replaced/old removed/old');
  const second = await laboratory.layer(laboratory.over(onBase, first), 'cd /data; rm goes again; rm -r replaced removed; mkdir replaced; touch replaced/new; echo 2 > second');
  const tree = laboratory.tree(second);
  assert.ok(isWhiteout(join(tree, 'data/goes')) && isWhiteout(join(tree, 'data/removed')));
  assert.deepEqual(readdirSync(join(tree, 'data/replaced')), ['new']);
  const third = await laboratory.layer(laboratory.over(onBase, first, second), 'cd /data; [ ! -e replaced/old ] && [ ! -e goes ] && echo 3 > again; rm second; mkdir removed');
  const sandbox = await laboratory.sandbox(laboratory.over(onBase, first, second, third));
  assert.equal(await laboratory.run(sandbox, 'cd /data; find . | sort | xargs; cat stays again'), '. ./again ./removed ./replaced ./replaced/new ./stays\n1\n3');
});

test('sandboxes over the same layers change neither the layers nor each other', async () => {
  const { onBase } = laboratory;
  const layers: LayerRef[] = [];
  for (const name of ['one', 'two', 'three']) layers.push(await laboratory.layer(laboratory.over(onBase, ...layers), `mkdir -p /data; echo ${name} > /data/${name}; echo ${name} > /data/last`));
  const root = laboratory.over(onBase, ...layers);
  const before = layers.map((layer) => listing(laboratory.tree(layer)));
  const [a, b] = await Promise.all([laboratory.sandbox(root), laboratory.sandbox(root)]);
  assert.equal(await laboratory.run(a, 'cat /data/*; echo mine > /data/one; rm /data/two /usr/bin/nano; touch /data/new; chmod 000 /data/three; echo x >> /data/last'), 'three\none\nthree\ntwo');
  assert.equal(await laboratory.run(b, 'cat /data/*; ls /usr/bin/nano; mount -o remount,rw / 2>/dev/null; touch /data/new; ls /data | xargs'), 'three\none\nthree\ntwo\n/usr/bin/nano\nlast new one three two');
  assert.deepEqual(layers.map((layer) => listing(laboratory.tree(layer))), before);
  assert.equal(readFileSync(join(laboratory.tree(layers[2]!), 'data/last'), 'utf8'), 'three\n');
});

test('the same step over the same root gives the same layer, which is kept once and may come twice', async () => {
  const { onBase } = laboratory;
  const first = await laboratory.layer(onBase, 'echo same > /srv/file');
  const second = await laboratory.layer(onBase, 'echo same > /srv/file');
  assert.deepEqual(second, first);
  assert.deepEqual(laboratory.layerNames, [first.id]);
  const between = await laboratory.layer(laboratory.over(onBase, first), 'echo other > /srv/file');
  const root = laboratory.over(onBase, first, between, first);
  const step = await laboratory.step(root);
  assert.equal(await laboratory.run(step, 'cat /srv/file'), 'same');
  assert.equal(await laboratory.run(await laboratory.sandbox(root), 'cat /srv/file'), 'same');
  const [one, other] = [await laboratory.install(root), await laboratory.install(laboratory.over(onBase, between, first))];
  assert.equal(one.digest, other.digest, 'equal roots are one template');
  assert.notEqual((await laboratory.install(root, { A: 'b' })).digest, one.digest);
});

test('packages are installed, upgraded and removed over layers', async () => {
  const { onBase } = laboratory;
  const pack = (version: string): string => `set -e; mkdir -p /tmp/p/DEBIAN /tmp/p/usr/share/thing /tmp/p/etc/thing
    printf 'Package: thing\\nVersion: ${version}\\nArchitecture: all\\nMaintainer: x <x@example.com>\\nDescription: x\\n' > /tmp/p/DEBIAN/control
    echo /etc/thing/conf > /tmp/p/DEBIAN/conffiles; echo ${version} > /tmp/p/etc/thing/conf; echo ${version} > /tmp/p/usr/share/thing/v${version}
    printf '#!/bin/sh\\nadduser --system --group --quiet thing || true\\nchown thing /usr/share/thing\\n' > /tmp/p/DEBIAN/postinst; chmod 755 /tmp/p/DEBIAN/postinst
    dpkg-deb --build /tmp/p /tmp/p.deb > /dev/null; dpkg -i /tmp/p.deb > /tmp/said 2>&1 || cat /tmp/said; rm -r /tmp/p /tmp/p.deb`;
  const first = await laboratory.layer(onBase, pack('1'));
  const second = await laboratory.layer(laboratory.over(onBase, first), pack('2'));
  const root = laboratory.over(onBase, first, second);
  const sandbox = await laboratory.sandbox(root);
  assert.equal(await laboratory.run(sandbox, `ls /usr/share/thing; cat /etc/thing/conf; stat -c %U /usr/share/thing; dpkg-query -W thing; dpkg --verify thing; dpkg -r thing > /dev/null 2>&1; ls /usr/share/thing 2>&1 | wc -l`), 'v2\n2\nthing\nthing\t2\n1');
  const third = await laboratory.layer(root, 'dpkg --purge thing > /tmp/said 2>&1 || cat /tmp/said');
  assert.equal(await laboratory.run(await laboratory.sandbox(laboratory.over(root, third)), 'ls -d /usr/share/thing /etc/thing 2>&1 | grep -c "No such"; dpkg-query -W thing 2>&1 | grep -c "no packages"; apt-get check > /dev/null && echo sound'), '2\n1\nsound');
});

test('steps beside each other do not disturb each other', async () => {
  const { onBase } = laboratory;
  const base = await laboratory.layer(onBase, 'echo base > /srv/base');
  const layers = await Promise.all([1, 2, 3, 4].map((number) => laboratory.layer(laboratory.over(onBase, base), `echo ${number} > /srv/n${number}; echo ${number} > /srv/base; head -c 20000000 /dev/urandom > /srv/r${number}`)));
  assert.equal(new Set(layers.map(({ id }) => id)).size, 4);
  const sandbox = await laboratory.sandbox(laboratory.over(onBase, base, ...layers));
  assert.equal(await laboratory.run(sandbox, 'cat /srv/n? /srv/base | xargs; ls /srv/r? | wc -l'), '1 2 3 4 4\n4');
});

test('files that a program holds open or mapped when its step ends are whole', async () => {
  const step = await laboratory.step(laboratory.onBase);
  await laboratory.start(step, `perl -e '$| = 1; open F, ">/srv/open"; syswrite F, "a" x 100000; open G, ">/srv/ready"; sleep 1e6'`);
  await laboratory.run(step, 'while [ ! -e /srv/ready ]; do sleep 0.02; done');
  const tree = laboratory.tree(await laboratory.seal(step));
  assert.equal(readFileSync(join(tree, 'srv/open'), 'utf8'), 'a'.repeat(100_000));
});

test('a step that fills its disk gets an error, and what fits is kept', async () => {
  const step = await laboratory.step(laboratory.onBase, { diskMb: 100 });
  assert.match(await laboratory.run(step, 'dd if=/dev/zero of=/srv/big bs=1M count=300 2>&1 | head -1'), /No space left on device/);
  assert.equal(await laboratory.run(step, 'rm /srv/big; head -c 20000000 /dev/zero > /srv/fits; echo $?'), '0');
  const layer = await laboratory.seal(step);
  assert.ok(layer.bytes > 19_000_000 && layer.bytes < 30_000_000, String(layer.bytes));
});

test('a step that makes more files than its disk has room for gets an error', async () => {
  const step = await laboratory.step(laboratory.onBase, { diskMb: 20 });
  assert.match(await laboratory.run(step, `perl -e 'mkdir "/m"; for (1..100000) { open F, ">/m/$_" or print("$!\\n"), last; close F }'`), /No space left on device/);
  await laboratory.host.destroy(step.id);
});

test('a step that dies is told, leaves nothing, and cannot be sealed', async () => {
  const step = await laboratory.step(laboratory.onBase);
  await laboratory.run(step, 'echo x > /srv/x');
  process.kill(step.ref.pid, 'SIGKILL');
  await assert.rejects(laboratory.seal(step), fails('gone', /ended/));
  await eventually(() => laboratory.deaths.has(step.id));
  await laboratory.host.destroy(step.id);
  assert.deepEqual(laboratory.layerNames, []);
  assert.deepEqual(laboratory.guests, []);
  assert.throws(() => laboratory.host.guest(step.id), fails('gone', /ended/));
});

test('a step that is destroyed while it is sealed gives no layer or a whole one', async () => {
  for (const waitMs of [0, 20, 60]) {
    const step = await laboratory.step(laboratory.onBase);
    await laboratory.run(step, 'head -c 50000000 /dev/urandom > /srv/x');
    const sealing = laboratory.seal(step).then((layer) => layer.id, (reason: unknown) => reason);
    await new Promise((resolve) => setTimeout(resolve, waitMs));
    await laboratory.host.destroy(step.id);
    const outcome = await sealing;
    if (typeof outcome === 'string') assert.equal(lstatSync(join(laboratory.tree(outcome), 'srv/x')).size, 50_000_000);
    else assert.ok(outcome instanceof PaddockError && outcome.code === 'gone', String(outcome));
    assert.deepEqual(laboratory.layerNames, typeof outcome === 'string' ? [outcome] : []);
    assert.deepEqual(laboratory.guests, []);
    await laboratory.host.removeLayers(new Set());
  }
});

test('a seal that is called off leaves nothing', async () => {
  for (const waitMs of [5, 50, 150, 300]) {
    const step = await laboratory.step(laboratory.onBase);
    await laboratory.run(step, 'head -c 100000000 /dev/urandom > /srv/x');
    const calledOff = new AbortController();
    const sealing = laboratory.host.sealStep(step.id, calledOff.signal).then(() => 'sealed', (reason: unknown) => reason);
    await new Promise((resolve) => setTimeout(resolve, waitMs));
    const why = new PaddockError('conflict', 'called off');
    calledOff.abort(why);
    const outcome = await sealing;
    assert.ok(outcome === why || outcome === 'sealed', String(outcome));
    await laboratory.host.destroy(step.id);
    if (outcome === why) assert.deepEqual(laboratory.layerNames, []);
    assert.deepEqual(laboratory.guests, []);
  }
});

test('a step cannot be paused or saved, and only a step can be sealed', async () => {
  const step = await laboratory.step(laboratory.onBase);
  const save = async (): Promise<unknown> => laboratory.save(step, false);
  await assert.rejects(save, fails('unprocessable', /step of a build cannot be paused or saved/));
  assert.equal(await laboratory.run(step, 'echo runs'), 'runs');
  const sandbox = await laboratory.create();
  await assert.rejects(async () => laboratory.seal(sandbox), fails('conflict', /no step of a build/));
  assert.equal(await laboratory.run(sandbox, 'echo runs'), 'runs');
});

test('a step that cannot be booted leaves nothing', async () => {
  const missing = { base: laboratory.base.digest, layers: ['0'.repeat(64)] };
  await assert.rejects(laboratory.step(missing), fails('not_found', /layer 0{64} is not on this machine; build the template again/));
  await assert.rejects(laboratory.step({ base: 'nobody', layers: [] }), fails('not_found', /template nobody that this one starts from/));
  await assert.rejects(laboratory.step({ base: null, layers: [] }), fails('invalid_argument', /needs a template or an image/));
  await assert.rejects(laboratory.step({ base: null, layers: ['../../../etc'] }), fails('not_found', /is not on this machine/));
  await assert.rejects(laboratory.host.installTemplate({ name: 'x', root: missing, limits: laboratory.limits, env: {} }), fails('not_found', /is not on this machine/));
  // Called off while it boots.
  laboratory.images.add('empty', '77', async () => undefined);
  const { layer } = await laboratory.import('empty');
  const calledOff = AbortSignal.timeout(1);
  const { identity } = laboratory.someone();
  await assert.rejects(laboratory.host.provisionStep({ root: { base: null, layers: [layer.id] }, limits: laboratory.limits, identity, teamId: 'laboratory' as never, network: { allow: [], deny: [] } }, calledOff));
  assert.deepEqual(laboratory.guests, []);
  assert.deepEqual(await laboratory.host.installedTemplates(), []);
});

test('sandboxes of an installed template pause, fork, and come back also in a fresh process after the mount was lost', async () => {
  const { onBase } = laboratory;
  const layers = [await laboratory.layer(onBase, 'echo one > /srv/one; rm /usr/bin/nano'), await laboratory.layer(onBase, 'mkdir /opt/two; echo two > /opt/two/file')];
  const root = laboratory.over(onBase, ...layers);
  const template = await laboratory.install(root, { GREETING: 'hello' });
  const sandbox = await laboratory.create(template);
  await laboratory.start(sandbox, 'exec 7< /srv/one; cd /opt/two; while :; do date +%s%N > /tmp/clock; sleep 0.05; done');
  await laboratory.run(sandbox, 'echo written >> /srv/one; while [ ! -s /tmp/clock ]; do sleep 0.02; done');
  assert.equal(await laboratory.run(sandbox, 'echo $GREETING'), 'hello');
  const look = async (subject: Subject): Promise<void> => {
    assert.equal(await laboratory.run(subject, 'cat /srv/one /opt/two/file; ls /usr/bin/nano 2>/dev/null; perl -e "print 42"; git --version > /dev/null && echo'), 'one\nwritten\ntwo\n42');
    const clock = await laboratory.run(subject, 'cat /tmp/clock');
    await eventually(async () => assert.notEqual(await laboratory.run(subject, 'cat /tmp/clock'), clock));
  };
  await look(sandbox);
  const ref = await laboratory.save(sandbox, true);
  assert.equal(ref.template, template.digest);
  await laboratory.host.destroy(sandbox.id);
  await look(await laboratory.restore(ref, sandbox, { as: sandbox }));
  await look(await laboratory.restore(ref, sandbox));
  await laboratory.host.destroy(sandbox.id);

  await laboratory.host.teardown(); // what a reboot does to mounts
  assert.deepEqual(mountsBelow(laboratory.dataDir), []);
  await laboratory.open();
  assert.deepEqual(await laboratory.host.installedTemplates(), [template.digest]);
  await look(await laboratory.restore(ref, sandbox, { as: sandbox }));
  await look(await laboratory.restore(ref, sandbox));
});

test('a sandbox over layers is found again by the next server', async () => {
  const layer = await laboratory.layer(laboratory.onBase, 'echo here > /srv/file');
  const template = await laboratory.install(laboratory.over(laboratory.onBase, layer));
  const sandbox = await laboratory.create(template);
  await laboratory.host.close();
  const host = await laboratory.prepare();
  const recovered = await host.recover(new Map([[sandbox.id, { ref: sandbox.ref, agentToken: sandbox.token, teamId: 'laboratory' as never, network: { allow: [], deny: [] } }]]));
  assert.deepEqual(recovered.get(sandbox.id), { alive: true });
  assert.equal(await laboratory.run(sandbox, 'cat /srv/file'), 'here');
  await assert.rejects(host.uninstallTemplate(template.digest), fails('conflict', /still need the template/));
  assert.equal(await laboratory.run(await laboratory.create(template), 'cat /srv/file'), 'here');
});

test('a hundred layers', async () => {
  const layers: LayerRef[] = [];
  for (let number = 1; number <= 100; number++) {
    laboratory.images.add(`n${number}`, `a${number}`, async (tree) => {
      const { mkdir, writeFile } = await import('node:fs/promises');
      await mkdir(join(tree, 'data'));
      await writeFile(join(tree, 'data', `n${number}`), '');
      await writeFile(join(tree, 'data/last'), `${number}`);
    });
    layers.push((await laboratory.import(`n${number}`)).layer);
  }
  const root = laboratory.over(laboratory.onBase, ...layers);
  const top = await laboratory.layer(root, '[ $(ls /data | wc -l) = 101 ] && rm /data/n50');
  const sandbox = await laboratory.sandbox(laboratory.over(root, top));
  assert.equal(await laboratory.run(sandbox, 'ls /data | wc -l; cat /data/last'), '100\n100');
  const ref = await laboratory.save(sandbox, false);
  assert.equal(await laboratory.run(await laboratory.restore(ref, sandbox), 'ls /data | wc -l'), '100');
  const tooMany = { base: null, layers: Array.from({ length: 401 }, (_, number) => number.toString(16).padStart(64, '0')) };
  await assert.rejects(laboratory.step(tooMany), fails('invalid_argument', /400 layers at most, and this one has 401/));
});

test('a template is uninstalled when nothing needs it, and its layers are removed when no template does', async () => {
  const { onBase, host } = laboratory;
  const [shared, own, other] = [await laboratory.layer(onBase, 'echo shared > /srv/shared'), await laboratory.layer(onBase, 'echo own > /srv/own'), await laboratory.layer(onBase, 'echo other > /srv/other')];
  const [first, second] = [await laboratory.install(laboratory.over(onBase, shared, own)), await laboratory.install(laboratory.over(onBase, shared))];
  const sandbox = await laboratory.create(first);
  await assert.rejects(host.uninstallTemplate(first.digest), fails('conflict', /sandboxes or snapshots still need the template/));
  const ref = await laboratory.save(sandbox, true);
  await host.destroy(sandbox.id);
  await assert.rejects(host.uninstallTemplate(first.digest), fails('conflict', /still need/));
  await host.removeCheckpoint(ref.id);
  assert.equal(mountsBelow(join(laboratory.dataDir, 'roots')).length, 1);
  await host.uninstallTemplate(first.digest);
  await host.uninstallTemplate(first.digest);
  await host.uninstallTemplate('../../etc');
  assert.deepEqual(mountsBelow(join(laboratory.dataDir, 'roots')), []);
  assert.deepEqual(await host.installedTemplates(), [second.digest]);
  assert.equal(host.templates.byDigest(first.digest), undefined);
  await assert.rejects(laboratory.create(first), fails('not_found', /is not on this machine/));

  const step = await laboratory.step(laboratory.over(onBase, other));
  assert.equal(await host.removeLayers(new Set()), own.bytes);
  assert.deepEqual(laboratory.layerNames, [shared.id, other.id].sort());
  assert.deepEqual(await host.knownLayers([own.id, shared.id, 'nonsense', '..']), new Set([shared.id]));
  await host.destroy(step.id);
  assert.equal(await host.removeLayers(new Set([other.id])), 0);
  assert.equal(await host.removeLayers(new Set()), other.bytes);
  assert.equal(await laboratory.run(await laboratory.create(second), 'cat /srv/shared'), 'shared');
});

test('what of set-up a guest, a checkpoint or a template is made of is told for as long as there is one', async () => {
  const { host, base, onBase } = laboratory;
  const nothing = { templates: new Set(), agents: new Set(), runscs: new Set() };
  assert.deepEqual(await host.artefactsInUse(), nothing);
  const sandbox = await laboratory.create(base);
  const alive = await host.artefactsInUse();
  assert.deepEqual([[...alive.templates], alive.agents.size, [...alive.runscs]], [[base.digest], 1, [sandbox.ref.build]]);
  const ref = await laboratory.save(sandbox, true);
  await host.destroy(sandbox.id);
  assert.deepEqual(await host.artefactsInUse(), { templates: new Set([base.digest]), agents: new Set([ref.agent]), runscs: new Set([ref.build]) });
  await host.removeCheckpoint(ref.id);
  await laboratory.install(laboratory.over(onBase, await laboratory.layer(onBase, 'echo built > /srv/built')));
  assert.deepEqual(await host.artefactsInUse(), { ...nothing, templates: new Set([base.digest]) });
});
