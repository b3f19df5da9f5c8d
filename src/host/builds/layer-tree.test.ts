import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, linkSync, lstatSync, lutimesSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { fitLayer, type LayerFacts, longestPath } from './layer-tree.ts';
import { getXattr, listXattrs, setXattr } from './xattrs.ts';

let scratch: string;
const [old, since] = [1_000_000_000, 1_500_000_000_000]; // seconds and milliseconds since the epoch

beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'paddock-layer-'));
});

afterEach(() => {
  execFileSync('rm', ['-rf', scratch]);
});

/** A new tree of this content. */
function tree(fill: (at: (path: string) => string) => void): string {
  const root = join(scratch, String(readdirSync(scratch).length));
  mkdirSync(root);
  fill((path) => join(root, path));
  return root;
}

function step(root: string): LayerFacts {
  return fitLayer(root, 'step', since);
}

function mknod(path: string, ...kind: string[]): void {
  execFileSync('mknod', [path, ...kind]);
}

const whiteout = ['c', '0', '0'];

function usual(at: (path: string) => string): void {
  mkdirSync(at('dir'));
  writeFileSync(at('dir/file'), 'content');
  linkSync(at('dir/file'), at('dir/other name'));
  symlinkSync('dir/file', at('link'));
  mknod(at('gone'), ...whiteout);
  execFileSync('mkfifo', [at('pipe')]);
}

test('the same content has the same name, whenever and wherever it was written', () => {
  const first = step(tree(usual));
  assert.deepEqual(step(tree(usual)), first);
  assert.match(first.id, /^[0-9a-f]{64}$/);
  assert.equal(first.entries, 7);
  const again = tree(usual);
  utimesSync(join(again, 'dir/file'), 1_700_000_000, 1_700_000_000);
  assert.equal(step(again).id, first.id, 'when a step ran is no part of what it did');
});

const changes: Record<string, (at: (path: string) => string) => void> = {
  content: (at) => writeFileSync(at('dir/file'), 'Content'),
  mode: (at) => chmodSync(at('dir/file'), 0o600),
  'set-user-id bit': (at) => chmodSync(at('dir/file'), 0o4644),
  'mode of a directory': (at) => chmodSync(at('dir'), 0o1777),
  'mode of the root': (at) => chmodSync(at('.'), 0o700),
  owner: (at) => chownSync(at('dir/file'), 1000, 0),
  group: (at) => chownSync(at('dir/file'), 0, 1000),
  'time that was set on purpose': (at) => utimesSync(at('dir/file'), old, old),
  'time of a link that was set on purpose': (at) => lutimesSync(at('link'), old, old),
  'target of a link': (at) => (rmSync(at('link')), symlinkSync('dir/fil', at('link'))),
  'hard link that became a copy': (at) => (rmSync(at('dir/other name')), writeFileSync(at('dir/other name'), 'content')),
  'mark for something deleted': (at) => rmSync(at('gone')),
  'opaque directory': (at) => setXattr(Buffer.from(at('dir')), 'trusted.overlay.opaque', Buffer.from('y')),
  'attribute of the file': (at) => setXattr(Buffer.from(at('dir/file')), 'user.mime', Buffer.from('x')),
  'capability of the file': (at) => setXattr(Buffer.from(at('dir/file')), 'security.capability', Buffer.from('AQAAAgAgAAAAAAAAAAAAAAAAAAA=', 'base64')),
  name: (at) => (mknod(at('gone too'), ...whiteout), undefined),
};

for (const [name, change] of Object.entries(changes)) {
  test(`another layer: ${name}`, () => {
    const changed = tree(usual);
    change((path) => join(changed, path));
    assert.notEqual(step(changed).id, step(tree(usual)).id);
  });
}

test('fields that run into each other do not make different trees the same', () => {
  const ids = [
    tree((at) => (writeFileSync(at('a'), ''), writeFileSync(at('b'), ''))),
    tree((at) => (mkdirSync(at('a')), writeFileSync(at('a/b'), ''))),
    tree((at) => writeFileSync(at('ab'), '')),
    tree((at) => symlinkSync('b', at('a'))),
    tree((at) => writeFileSync(at('a'), 'b')),
  ].map((root) => step(root).id);
  assert.equal(new Set(ids).size, ids.length);
});

test('names that are no text are kept as they are', () => {
  const root = tree(() => undefined);
  const name = Buffer.concat([Buffer.from(`${root}/`), Buffer.of(0xff, 0xfe, 0x0a)]);
  writeFileSync(name, 'x');
  assert.equal(step(root).entries, 2);
  assert.deepEqual(readdirSync(root, { encoding: 'buffer' }), [Buffer.of(0xff, 0xfe, 0x0a)]);
});

test('what a file takes is counted once, however many names it has', () => {
  const root = tree((at) => {
    writeFileSync(at('a'), Buffer.alloc(1 << 20, 1));
    linkSync(at('a'), at('b'));
    linkSync(at('a'), at('c'));
  });
  const { bytes } = step(root);
  assert.ok(bytes >= 1 << 20 && bytes < 1.1 * (1 << 20), String(bytes));
});

test('what the agent and the runtime wrote is left out of a step, and kept of an image', () => {
  const own = (at: (path: string) => string): void => {
    for (const dir of ['.paddock', 'proc', 'sys', 'dev', 'run/paddock/private', 'etc', 'usr/bin', 'var/lib/dbus']) mkdirSync(at(dir), { recursive: true });
    for (const file of ['etc/hostname', 'etc/hosts', 'etc/resolv.conf', 'etc/machine-id', 'var/lib/dbus/machine-id', '.paddock/agent', 'dev/fd', 'run/paddock/sudo', 'run/pid', 'etc/fstab']) writeFileSync(at(file), '');
    symlinkSync('/.paddock/agent', at('usr/bin/sudo'));
  };
  const [asStep, asImage] = [tree(own), tree(own)];
  const names = (root: string): string[] => readdirSync(root, { recursive: true }).map(String).sort();
  const before = names(asStep);
  step(asStep);
  fitLayer(asImage, 'image', 0);
  assert.deepEqual(names(asStep), ['etc', 'etc/fstab', 'run', 'run/pid', 'usr', 'usr/bin', 'var', 'var/lib', 'var/lib/dbus']);
  assert.deepEqual(names(asImage), before);
});

test('/tmp stays a directory that is never empty, whatever a step does to it', () => {
  const deleted = tree((at) => mknod(at('tmp'), ...whiteout));
  step(deleted);
  assert.deepEqual(readdirSync(deleted), []);
  const anew = tree((at) => {
    mkdirSync(at('tmp'));
    setXattr(Buffer.from(at('tmp')), 'trusted.overlay.opaque', Buffer.from('y'));
    mknod(at('tmp/.X11-unix'), ...whiteout);
    mknod(at('tmp/gone'), ...whiteout);
    writeFileSync(at('tmp/kept'), '');
  });
  step(anew);
  assert.deepEqual(readdirSync(join(anew, 'tmp')).sort(), ['gone', 'kept']);
  assert.deepEqual(listXattrs(Buffer.from(join(anew, 'tmp'))), []);
});

test('a real sudo is kept', () => {
  const root = tree((at) => (mkdirSync(at('usr/bin'), { recursive: true }), writeFileSync(at('usr/bin/sudo'), 'real')));
  step(root);
  assert.equal(readFileSync(join(root, 'usr/bin/sudo'), 'utf8'), 'real');
});

test('devices and sockets are left out', () => {
  const fill = (at: (path: string) => string): void => {
    mknod(at('disk'), 'b', '7', '0');
    mknod(at('null'), 'c', '1', '3');
    mknod(at('gone'), ...whiteout);
    // A program that is killed leaves its socket.
    spawnSync(process.execPath, ['-e', `require('net').createServer().listen(${JSON.stringify(at('socket'))}, () => process.kill(process.pid, 'SIGKILL'))`]);
  };
  const [asStep, asImage] = [tree(fill), tree(fill)];
  assert.deepEqual(readdirSync(asStep).sort(), ['disk', 'gone', 'null', 'socket']);
  step(asStep);
  fitLayer(asImage, 'image', 0);
  assert.deepEqual([readdirSync(asStep), readdirSync(asImage)], [['gone'], []]);
});

test('attack: what an overlay would obey is taken from an image, and all but deletions from a step', () => {
  const fill = (at: (path: string) => string): void => {
    mkdirSync(at('dir'));
    for (const name of ['trusted.overlay.redirect', 'trusted.overlay.metacopy', 'trusted.overlay.origin', 'trusted.overlay.whiteout', 'trusted.other', 'user.overlay.opaque', 'user.mine']) setXattr(Buffer.from(at('dir')), name, Buffer.from('/etc'));
    setXattr(Buffer.from(at('dir')), 'trusted.overlay.opaque', Buffer.from('y'));
  };
  const [asStep, asImage] = [tree(fill), tree(fill)];
  step(asStep);
  fitLayer(asImage, 'image', 0);
  assert.deepEqual(listXattrs(Buffer.from(join(asStep, 'dir'))).sort(), ['trusted.overlay.opaque', 'user.mine']);
  assert.deepEqual(listXattrs(Buffer.from(join(asImage, 'dir'))), ['user.mine']);
  const half = tree((at) => setXattr(Buffer.from(at('.')), 'trusted.overlay.opaque', Buffer.from('x')));
  step(half);
  assert.deepEqual(listXattrs(Buffer.from(half)), []);
});

test('attack: links in the place of what is left out are removed, and what they lead to stays', () => {
  const outside = join(scratch, 'outside');
  mkdirSync(outside);
  writeFileSync(join(outside, 'machine-id'), 'host');
  const root = tree((at) => {
    mkdirSync(at('etc'));
    mkdirSync(at('var/lib'), { recursive: true });
    for (const name of ['.paddock', 'dev', 'proc', 'sys', 'run', 'tmp']) symlinkSync(outside, at(name));
    symlinkSync(join(outside, 'machine-id'), at('etc/resolv.conf'));
    symlinkSync(outside, at('etc/hosts'));
    symlinkSync(outside, at('var/lib/dbus'));
  });
  step(root);
  assert.equal(readFileSync(join(outside, 'machine-id'), 'utf8'), 'host');
  assert.deepEqual(readdirSync(outside), ['machine-id']);
  assert.deepEqual(readdirSync(root).sort(), ['etc', 'run', 'var']);
  assert.equal(readlinkSync(join(root, 'run')), outside, 'a link is what the step left there, whatever it means');
  assert.deepEqual(readdirSync(join(root, 'etc')), []);
  assert.equal(lstatSync(join(root, 'var/lib/dbus')).isSymbolicLink(), true);
});

test('attack: attributes are read of a link, not of what it leads to', () => {
  const outside = join(scratch, 'outside');
  writeFileSync(outside, '');
  setXattr(Buffer.from(outside), 'trusted.secret', Buffer.from('kept'));
  step(tree((at) => symlinkSync(outside, at('link'))));
  assert.equal(getXattr(Buffer.from(outside), 'trusted.secret').toString(), 'kept');
});

test('attack: a root that is a link is refused', () => {
  const root = tree(() => undefined);
  symlinkSync(root, join(scratch, 'link'));
  assert.throws(() => step(join(scratch, 'link')), /no directory/);
});

test('attack: a pipe does not hang the reader', () => {
  assert.equal(step(tree((at) => execFileSync('mkfifo', [at('pipe')]))).entries, 2);
});

test('attack: a path longer than the limit is refused with its beginning', () => {
  const name = 'd'.repeat(250);
  const levels = Math.ceil(longestPath / 251) + 1;
  const root = tree(() => undefined);
  execFileSync('bash', ['-c', `cd "$0"; for i in $(seq ${levels}); do mkdir ${name} && cd ${name}; done`, root]);
  assert.throws(() => step(root), /the path "ddd.*… *" has 30\d\d bytes, and 3000 are the most/);
  assert.ok(existsSync(root));
});

test('attack: thousands of levels do not overflow anything', () => {
  const root = tree(() => undefined);
  mkdirSync(join(root, ...Array.from({ length: 1499 }, () => 'd')), { recursive: true });
  assert.equal(step(root).entries, 1500);
});
