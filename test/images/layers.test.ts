import assert from 'node:assert/strict';
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { runTool } from '../../src/host/tool.ts';
import { directory, file, hardLink, ImageBench, layerOf, symlink } from '../harness/images.ts';

const read = (tree: string, name: string): string => readFileSync(join(tree, name), 'utf8');
const names = (tree: string, name = '.'): string[] => readdirSync(join(tree, name)).sort();

describe('layers of an image', () => {
  test('keep owners, modes, times, links, and the attributes that a program may set', async () => {
    using bench = new ImageBench();
    const capability = '\u0001\u0000\u0000\u0002\u0000\u0004\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0000';
    const tree = await bench.unpack(
      layerOf(
        directory('./', { mode: 0o711, time: 1_600_000_000 }),
        directory('bin', { uid: 3, gid: 4, mode: 0o2775, time: 1_500_000_000 }),
        file('bin/su', 'set-uid', { mode: 0o4755, uid: 0, gid: 7 }),
        file('bin/ping', 'ping', { mode: 0o755, xattrs: { 'security.capability': capability, 'user.note': 'kept', 'trusted.overlay.opaque': 'y', 'security.selinux': 'label' } }),
        hardLink('bin/again', 'bin/su'),
        symlink('sh', '/bin/ash'),
        file('secret', 'x', { mode: 0o000, uid: 100_000, gid: 65_534 }),
        { name: 'pipe', type: '6', mode: 0o620 },
        { name: 'null', type: '3' },
      ),
    );
    const status = (name: string): string => {
      const { mode, uid, gid, mtimeMs } = lstatSync(join(tree, name));
      return `${mode.toString(8)} ${uid}:${gid} ${mtimeMs / 1000}`;
    };
    assert.equal(status('.'), '40711 0:0 1600000000');
    assert.equal(status('bin'), '42775 3:4 1500000000');
    assert.equal(status('bin/su'), '104755 0:7 1700000000');
    assert.equal(status('sh'), '120777 0:0 1700000000');
    assert.equal(status('secret'), '100000 100000:65534 1700000000');
    assert.equal(status('pipe'), '10620 0:0 1700000000');
    assert.equal(readlinkSync(join(tree, 'sh')), '/bin/ash');
    assert.equal(lstatSync(join(tree, 'bin/again')).ino, lstatSync(join(tree, 'bin/su')).ino);
    assert.equal(existsSync(join(tree, 'null')), false);
    const packed = await runTool('tar', ['--format=posix', '--xattrs', '--xattrs-include=*', '-cf', '-', '-C', tree, 'bin/ping']);
    assert.deepEqual([...packed.matchAll(/SCHILY\.xattr\.([^=]+)=([^\n]*)/g)].map(([, name, value]) => [name, value]).sort(), [['security.capability', capability], ['user.note', 'kept']]);
  });

  test('lie one over another: whiteouts, opaque directories, files instead of directories and the reverse', async () => {
    using bench = new ImageBench();
    const tree = await bench.unpack(
      layerOf(directory('a'), file('a/gone', '1'), file('a/stays', '1'), directory('opaque/sub'), file('opaque/old', '1'), file('opaque/sub/old', '1'), file('was-file', '1'), directory('was-dir'), file('was-dir/deep/x', '1'), symlink('was-link', 'a'), file('both', '1')),
      layerOf(
        file('a/.wh.gone'),
        // Before and after the marker: it is about the layers below only.
        file('opaque/before', '2'),
        file('opaque/sub/new', '2'),
        file('opaque/.wh..wh..opq'),
        file('opaque/after', '2'),
        directory('was-file'),
        file('was-file/in', '2'),
        file('was-dir', '2'),
        directory('was-link'),
        file('was-link/in', '2'),
        file('both', '2'),
        file('.wh.both'),
        file('.wh.never-there'),
        file('.wh..wh.plnk', 'left over by an old storage driver'),
      ),
    );
    assert.deepEqual(names(tree), ['a', 'both', 'opaque', 'was-dir', 'was-file', 'was-link']);
    assert.deepEqual(names(tree, 'a'), ['stays']);
    assert.deepEqual(names(tree, 'opaque'), ['after', 'before', 'sub']);
    assert.deepEqual(names(tree, 'opaque/sub'), ['new']);
    assert.equal(read(tree, 'was-dir'), '2');
    assert.equal(read(tree, 'was-file/in'), '2');
    assert.equal(lstatSync(join(tree, 'was-link')).isDirectory(), true);
    assert.equal(read(tree, 'both'), '2');
  });

  test('link to files of lower layers, and leave the other name alone when one is replaced', async () => {
    using bench = new ImageBench();
    const tree = await bench.unpack(layerOf(file('one', 'first')), layerOf(hardLink('two', 'one'), hardLink('three', './one')), layerOf(file('one', 'second'), hardLink('two', 'two')));
    assert.deepEqual([read(tree, 'one'), read(tree, 'two'), read(tree, 'three')], ['second', 'first', 'first']);
  });

  test('go through links in the tree as a process in the sandbox would', async () => {
    using bench = new ImageBench();
    const tree = await bench.unpack(
      layerOf(directory('usr/lib'), symlink('lib', 'usr/lib'), symlink('abs', '/usr/lib'), symlink('up', '../../../../usr/lib'), symlink('later', 'not/yet')),
      layerOf(file('lib/a', 'a'), file('abs/b', 'b'), file('up/c', 'c'), file('later/d', 'd'), file('lib/.wh.nothing')),
    );
    assert.deepEqual(names(tree, 'usr/lib'), ['a', 'b', 'c']);
    assert.equal(read(tree, 'not/yet/d'), 'd');
    assert.equal(lstatSync(join(tree, 'lib')).isSymbolicLink(), true);
  });

  test('are the same tree each time, times of directories included', async () => {
    using bench = new ImageBench();
    const tars = [layerOf(file('x/y/z', '1'), file('q', '1')), layerOf(file('x/y/more', '2'), file('.wh.q'))];
    const [one, two] = [await bench.unpack(...tars), await bench.unpack(...tars)];
    const list = (tree: string): Promise<string> => runTool('find', [tree, '-printf', '%P %m %U:%G %s %T@\\n']);
    assert.equal(await list(one), await list(two));
    assert.match(await list(one), /^x\/y 755 0:0 \d+ 0\.0+$/m);
  });

  test('may be compressed with gzip, in several members too, with zstd, or not at all', async () => {
    using bench = new ImageBench();
    const tar = layerOf(file('a', 'x'.repeat(300_000)));
    const members = (bytes: Buffer): Buffer => Buffer.concat([gzipSync(bytes.subarray(0, 1000)), gzipSync(bytes.subarray(1000))]);
    for (const compress of [gzipSync, members, zstdCompressSync, (bytes: Buffer): Buffer => bytes]) {
      const tree = await bench.pull(bench.layout([tar], { compress: (bytes) => Buffer.from(compress(bytes)) }));
      assert.equal(lstatSync(join(tree, 'a')).size, 300_000);
    }
  });

  test('have names as long as file systems take, in the forms of GNU and of POSIX', async () => {
    using bench = new ImageBench();
    const deep = `${'d'.repeat(200)}/${'e'.repeat(200)}/${'f'.repeat(250)}`;
    const tree = await bench.unpack(layerOf(file(deep, 'deep'), file('näme', 'utf-8')));
    assert.equal(read(tree, deep), 'deep');
    assert.equal(read(tree, 'näme'), 'utf-8');
    const work = bench.emptyDirectory();
    await runTool('sh', ['-c', `cd ${work} && mkdir -p ${'g'.repeat(120)} && echo gnu > ${'g'.repeat(120)}/f && truncate -s 3M sparse && printf end >> sparse && tar --format=gnu --sparse -cf ../gnu.tar .`]);
    const gnu = await bench.unpack(readFileSync(join(bench.dir, 'gnu.tar')));
    assert.equal(read(gnu, `${'g'.repeat(120)}/f`), 'gnu\n');
    const sparse = lstatSync(join(gnu, 'sparse'));
    assert.equal(sparse.size, 3 * 1_048_576 + 3);
    assert.ok(sparse.blocks < 1000, 'holes are not written');
    assert.equal(readFileSync(join(gnu, 'sparse')).subarray(-3).toString(), 'end');
  });

  test('are unpacked with nothing but the directory: no link in the way leads to this machine', async () => {
    using bench = new ImageBench();
    const tree = await bench.unpack(
      layerOf(symlink('etc', '/'), symlink('x', '../../..'), symlink('host', bench.dir)),
      layerOf(file('etc/written', 'in the root'), file('x/also', 'in the root'), hardLink('y', 'etc/written'), file('host/inside', 'below the tree')),
    );
    assert.deepEqual(names(tree), ['also', 'etc', 'host', bench.dir.split('/')[1], 'written', 'x', 'y'].sort());
    assert.equal(read(join(tree, bench.dir), 'inside'), 'below the tree');
    assert.equal(existsSync('/written') || existsSync('/also') || existsSync(join(bench.dir, 'inside')), false);
  });
});
