import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, linkSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { BuildFailure } from '../../src/core/templates/build-host.ts';
import { applyLayer } from '../../src/host/images/unpacker.ts';
import { blocksOf, directory, type Entry, file, hardLink, ImageBench, layerOf, sha256, symlink, unpacker, unpackersOf } from '../harness/images.ts';
import { eventually } from '../harness/wait.ts';

const generous = { maxBytes: 1e9, bytes: 0, entries: 1000, stream: 1e9 };

function fails(code: BuildFailure['code'], text: RegExp): (reason: unknown) => boolean {
  return (reason) => {
    assert.ok(reason instanceof BuildFailure, String(reason));
    assert.deepEqual({ code: reason.code, says: text.test(reason.message) }, { code, says: true }, reason.message);
    return true;
  };
}

describe('a hostile layer is refused by name', () => {
  const attacks: readonly [title: string, entries: readonly Entry[], text: RegExp][] = [
    ['a name with ..', [file('a/../../etc/cron.d/x')], /"a\/\.\.\/\.\.\/etc\/cron\.d\/x" has \.\. in it/],
    ['a name that is only ..', [directory('..')], /"\.\.\/?" has \.\. in it/],
    ['an absolute name', [file('/etc/passwd')], /"\/etc\/passwd" is an absolute name/],
    ['a hard link to a name with ..', [hardLink('shadow', '../../../etc/shadow')], /"shadow" is a hard link to a name that cannot be.*\.\. in it/],
    ['a hard link to an absolute name', [hardLink('shadow', '/etc/shadow')], /"shadow" is a hard link to a name that cannot be.*absolute/],
    ['a hard link to what is not there', [hardLink('x', 'etc/shadow')], /"x" is a hard link to "etc\/shadow", which is not there/],
    ['a hard link through a link to the root', [symlink('r', '/'), hardLink('x', 'r/etc/shadow')], /"x" is a hard link to "r\/etc\/shadow", which is not there/],
    ['a hard link to a directory', [directory('d'), hardLink('x', 'd')], /"x" is a hard link to "d", a directory/],
    ['a hard link to the root', [hardLink('x', '.')], /"x" is a hard link to the root/],
    ['a file instead of the root', [file('.')], /"\." names the root/],
    ['a whiteout of ..', [file('a/.wh...')], /"a\/\.wh\.\.\." is no whiteout/],
    ['a whiteout of nothing', [file('a/.wh.')], /"a\/\.wh\." is no whiteout/],
    ['a way through a file', [file('f'), file('f/x')], /"f\/x" leads through "\/f", which is no directory/],
    ['links in a circle', [symlink('a', 'b'), symlink('b', 'a'), file('a/x')], /"a\/x" leads through more than 40 links/],
    ['a name that is too long', [file('x'.repeat(256))], /has a component longer than 255 bytes/],
    ['a path that is too long', [file('x/'.repeat(2048) + 'x')], /is longer than 4095 bytes/],
    ['a path that is too deep', [file('x/'.repeat(300) + 'x')], /is deeper than 256 directories/],
    ['a path that grows through links', [directory('x/'.repeat(200)), symlink('s', 'x/'.repeat(200)), file(`s/${'y/'.repeat(200)}z`)], /leads deeper than 4095 bytes or 256 directories/],
    ['a kind that nobody knows', [{ name: 'x', type: 'Z' }], /"x" is of the unknown kind/],
    ['a capability that is none', [file('x', '', { xattrs: { 'security.capability': 'nonsense' } })], /extended attribute "security.capability", which cannot be kept/],
    ['more attributes than anybody needs', [file('x', '', { xattrs: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`user.${i}`, ''])) })], /more than 64 extended attributes/],
  ];
  for (const [title, entries, text] of attacks) {
    test(title, async () => {
      using bench = new ImageBench();
      await assert.rejects(bench.unpack(layerOf(...entries)), fails('image_unsafe', text));
    });
  }
});

describe('a bomb', () => {
  const mib = 1_048_576;

  test('of 10 GiB of holes is refused before it is written', async () => {
    using bench = new ImageBench();
    // The content of a sparse file is short, whatever its size.
    const sparse = (): Buffer => {
      const [header = Buffer.alloc(512)] = blocksOf({ name: 'holes', type: 'S', size: 0 });
      header.write('00000000000\0', 386); // offset of the only part
      header.write('00000000000\0', 398); // and its length
      header.write((10 * 1024 * mib).toString(8).padStart(11, '0') + '\0', 483);
      header.write('ustar  \0', 257);
      header.write('        ', 148);
      header.write(`${header.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, '0')}\0 `, 148);
      return Buffer.concat([header, Buffer.alloc(1024)]);
    };
    await assert.rejects(bench.pull(bench.layout([sparse()]), { maxBytes: 64 * mib }), fails('image_too_large', /takes more than 67108864 bytes when unpacked, at "holes"/));
  });

  test('of zeros, compressed a thousandfold, ends when the limit is reached', async () => {
    using bench = new ImageBench();
    const tar = layerOf(file('zeros', Buffer.alloc(200 * mib)));
    await assert.rejects(bench.pull(bench.layout([tar]), { maxBytes: 64 * mib }), fails('image_too_large', /at "zeros"/));
  });

  test('of small files ends too, over all layers together', async () => {
    using bench = new ImageBench();
    const many = (from: number): Buffer => layerOf(...Array.from({ length: 20 }, (_, i) => file(`f${from + i}`, Buffer.alloc(mib, 1))));
    await assert.rejects(bench.pull(bench.layout([many(0), many(20), many(40)]), { maxBytes: 50 * mib }), fails('image_too_large', /layer 3 of 3/));
  });

  test('behind the end of the tar is counted', async () => {
    using bench = new ImageBench();
    const tar = Buffer.concat([layerOf(file('a')), Buffer.alloc(20 * mib)]);
    const path = bench.emptyDirectory();
    await assert.rejects(applyLayer(unpacker, path, pieces(tar), { ...generous, stream: 4 * mib }, 'layer 1 of 1', AbortSignal.timeout(20_000)), fails('image_too_large', /longer than it may be when decompressed/));
  });

  test('of one file written again and again is counted', async () => {
    using bench = new ImageBench();
    const tar = layerOf(...Array.from({ length: 30 }, () => file('same', Buffer.alloc(mib, 7))));
    const path = bench.emptyDirectory();
    await assert.rejects(applyLayer(unpacker, path, pieces(tar), { ...generous, stream: 8 * mib }, 'layer 1 of 1', AbortSignal.timeout(20_000)), fails('image_too_large', /longer than it may be/));
  });

  test('of a million entries ends at the limit, directories that were left out included', async () => {
    using bench = new ImageBench();
    const path = bench.emptyDirectory();
    const empty = blocksOf(file('.wh.nothing'));
    const million = async function* (): AsyncGenerator<Uint8Array> {
      const thousand = Buffer.concat(Array.from({ length: 1000 }, () => empty).flat());
      for (let i = 0; i <= 1000; i++) yield thousand;
    };
    await assert.rejects(applyLayer(unpacker, path, million(), { ...generous, entries: 1_000_000 }, 'layer 1 of 1', AbortSignal.timeout(60_000)), fails('image_too_large', /more files than an image may have/));
    const deep = layerOf(...Array.from({ length: 10 }, (_, i) => file(`${i}/${'x/'.repeat(150)}f`)));
    await assert.rejects(applyLayer(unpacker, bench.emptyDirectory(), pieces(deep), generous, 'layer 1 of 1', AbortSignal.timeout(20_000)), fails('image_too_large', /more files than/));
  });

  test('of headers finds the memory of the unpacker bounded', async () => {
    using bench = new ImageBench();
    // A map of parts, as long as one likes, that has to be held in memory.
    const head = blocksOf({ name: 'pax', type: 'x', data: [['GNU.sparse.major', '1'], ['GNU.sparse.minor', '0'], ['GNU.sparse.name', 'x'], ['GNU.sparse.realsize', '1']].map(([key, value]) => paxRecord(key!, value!)).join('') });
    const parts = async function* (): AsyncGenerator<Uint8Array> {
      yield Buffer.concat([...head, ...blocksOf({ name: 'x', size: 4_000_000_000 }), Buffer.from('900000000\n')]);
      const zeros = Buffer.from('0\n'.repeat(mib));
      for (let i = 0; i < 2000; i++) yield zeros;
    };
    await assert.rejects(applyLayer(unpacker, bench.emptyDirectory(), parts(), { ...generous, stream: 8e9 }, 'layer 1 of 1', AbortSignal.timeout(60_000)), fails('image_unsafe', /needs more memory/));
    assert.deepEqual(unpackersOf(bench.dir), []);
  });
});

describe('a layer that is not what it says', () => {
  test('is refused when it has another digest than the configuration names', async () => {
    using bench = new ImageBench();
    const tar = layerOf(file('a', 'x'));
    await assert.rejects(bench.pull(bench.layout([tar], { diffIds: [sha256(Buffer.from('other'))] })), fails('image_pull_failed', /layer 1 of 1 is not what the image's configuration says: its digest is sha256:/));
  });

  test('is refused when the tar ends in the middle of a file, or is none', async () => {
    using bench = new ImageBench();
    const tar = layerOf(file('a', 'x'.repeat(5000)));
    await assert.rejects(bench.unpack(tar.subarray(0, 2000)), fails('image_pull_failed', /ends or is damaged within "a"/));
    await assert.rejects(bench.unpack(Buffer.alloc(2048, 'no tar')), fails('image_pull_failed', /is no tar/));
  });

  test('is refused when it is damaged in its compression', async () => {
    using bench = new ImageBench();
    const compress = (bytes: Buffer): Buffer => {
      const packed = gzipSync(bytes);
      packed.fill(0xff, 20, 60);
      return packed;
    };
    await assert.rejects(bench.pull(bench.layout([layerOf(file('a', 'x'.repeat(5000)))], { compress })), fails('image_pull_failed', /layer 1 of 1 is damaged/));
  });
});

describe('the unpacker', () => {
  test('sees nothing of this machine but the directory, and has no power that could change that', async () => {
    using bench = new ImageBench();
    const tree = bench.emptyDirectory();
    const gate = Promise.withResolvers<void>();
    const work = applyLayer(unpacker, tree, slowly(layerOf(file('a', 'x')), gate.promise), generous, 'layer 1 of 1', AbortSignal.timeout(30_000));
    const pid = await eventually(() => unpackersOf(bench.dir).find((each) => commandOf(each).startsWith('unpacker-confined')) ?? false);
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const field = (name: string): string => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)![1]!;
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP
    for (const set of ['CapPrm', 'CapEff', 'CapBnd']) assert.equal(field(set), '000000008000001b', set);
    for (const set of ['CapInh', 'CapAmb']) assert.equal(field(set), '0000000000000000', set);
    assert.equal(field('NoNewPrivs'), '1');
    assert.match(field('NSpid'), /\t1$/);
    for (const kind of ['mnt', 'pid', 'net', 'ipc', 'uts']) assert.notEqual(readlinkSync(`/proc/${pid}/ns/${kind}`), readlinkSync(`/proc/self/ns/${kind}`), kind);
    const mounts = readFileSync(`/proc/${pid}/mountinfo`, 'utf8').trim().split('\n');
    assert.equal(mounts.length, 1);
    assert.match(mounts[0]!, / \/ rw,nosuid,nodev,noexec/);
    assert.deepEqual(openFiles(pid).filter(([fd, what]) => Number(fd) > 2 && !/^anon_inode:|^pipe:|^\/a$/.test(what)), [], 'nothing but its own, and the file that is being written');
    assert.equal(readFileSync(`/proc/${pid}/environ`, 'utf8').includes('PATH'), false);
    const interfaces = readFileSync(`/proc/${pid}/net/dev`, 'utf8').split('\n').slice(2).filter((line) => line.trim() !== '');
    assert.equal(interfaces.length, 1, 'nothing but its loopback');
    gate.resolve();
    assert.equal((await work).entries, 1);
    assert.equal(existsSync(`/proc/${pid}`), false);
  });

  test('reads nothing of this machine through links that a tree is made of', async () => {
    using bench = new ImageBench();
    const secret = join(bench.dir, 'secret');
    writeFileSync(secret, 'of the host');
    // What is below the root names the same inside and outside, and is not the same.
    const tree = await bench.unpack(layerOf(symlink('a', secret), symlink('conf', '/etc'), symlink('up', `../../../..${bench.dir}`)), layerOf(hardLink('b', 'a'), file('up/mine', 'x'), file('conf/hostname', 'the image')));
    assert.equal(readlinkSync(join(tree, 'b')), secret, 'the link itself, not what it names');
    assert.equal(lstatSync(join(tree, 'b')).isSymbolicLink(), true);
    assert.equal(readFileSync(join(tree, bench.dir, 'mine'), 'utf8'), 'x');
    assert.equal(readFileSync(join(tree, 'etc/hostname'), 'utf8'), 'the image');
    assert.deepEqual([existsSync(join(bench.dir, 'mine')), readFileSync(secret, 'utf8')], [false, 'of the host']);
    await assert.rejects(bench.unpack(layerOf(symlink('d', bench.dir)), layerOf(hardLink('c', 'd/secret'))), fails('image_unsafe', /which is not there/));
  });

  test('removes nothing of this machine through links: a whiteout ends at the tree', async () => {
    using bench = new ImageBench();
    const victim = join(bench.dir, 'victim');
    mkdirSync(victim);
    writeFileSync(join(victim, 'file'), 'kept');
    await bench.unpack(layerOf(symlink('v', victim), symlink('w', '../'.repeat(20) + victim.slice(1))), layerOf(file('v/.wh.file'), file('w/.wh..wh..opq'), file('.wh.v')));
    assert.equal(readFileSync(join(victim, 'file'), 'utf8'), 'kept');
  });

  test('changes nothing of this machine that a file in the tree shares an inode with, when it is replaced', async () => {
    using bench = new ImageBench();
    const tree = bench.emptyDirectory();
    const outside = join(bench.dir, 'outside');
    writeFileSync(outside, 'before', { mode: 0o600 });
    linkSync(outside, join(tree, 'shared'));
    await applyLayer(unpacker, tree, pieces(layerOf(file('shared', 'after', { mode: 0o777 }))), generous, 'layer 1 of 1', AbortSignal.timeout(20_000));
    assert.deepEqual([readFileSync(outside, 'utf8'), statSync(outside).mode & 0o777, readFileSync(join(tree, 'shared'), 'utf8')], ['before', 0o600, 'after']);
  });

  test('is gone when the caller gives up, and leaves no process', async () => {
    using bench = new ImageBench();
    const abort = new AbortController();
    const work = applyLayer(unpacker, bench.emptyDirectory(), slowly(layerOf(file('a')), new Promise(() => {})), generous, 'layer 1 of 1', abort.signal);
    await eventually(() => unpackersOf(bench.dir).some((each) => commandOf(each).startsWith('unpacker-confined')));
    abort.abort(new Error('given up'));
    await assert.rejects(work, /given up/);
    assert.deepEqual(unpackersOf(bench.dir), []);
  });

  test('does not outlive the server, also when that is killed', async () => {
    using bench = new ImageBench();
    const server = spawn(process.execPath, [join(import.meta.dirname, 'doomed.ts'), bench.emptyDirectory()], { stdio: 'ignore' });
    await eventually(() => unpackersOf(bench.dir).some((each) => commandOf(each).startsWith('unpacker-confined')));
    server.kill('SIGKILL');
    await eventually(() => unpackersOf(bench.dir).length === 0);
  });

  test('that is killed midway fails the pull, inner and outer process alike', async () => {
    for (const which of ['unpacker-confined', unpacker]) {
      using bench = new ImageBench();
      const work = applyLayer(unpacker, bench.emptyDirectory(), slowly(layerOf(file('a')), new Promise(() => {})), generous, 'layer 1 of 1', AbortSignal.timeout(30_000));
      const failed = assert.rejects(work, /the unpacker failed at layer 1 of 1/);
      const pid = await eventually(() => {
        const all = unpackersOf(bench.dir);
        return all.some((each) => commandOf(each).startsWith('unpacker-confined')) && (all.find((each) => commandOf(each).startsWith(which)) ?? false);
      });
      process.kill(pid, 'SIGKILL');
      await failed;
      assert.deepEqual(unpackersOf(bench.dir), []);
    }
  });

  test('refuses a directory that others could enter, or that is not empty', async () => {
    using bench = new ImageBench();
    const found = await bench.images.find(bench.request(bench.layout([layerOf(file('su', '', { mode: 0o4755 }))])), AbortSignal.timeout(10_000));
    const tree = bench.emptyDirectory();
    chmodSync(bench.dir, 0o755);
    await assert.rejects(found.unpack(tree, AbortSignal.timeout(10_000)), /can be entered by others than root/);
    chmodSync(bench.dir, 0o700);
    writeFileSync(join(tree, 'left'), '');
    await assert.rejects(found.unpack(tree, AbortSignal.timeout(10_000)), /is not empty/);
    rmSync(join(tree, 'left'));
    await found.unpack(tree, AbortSignal.timeout(10_000));
    assert.equal(statSync(join(tree, 'su')).mode & 0o7777, 0o4755);
  });
});

function openFiles(pid: number): (readonly [fd: string, what: string])[] {
  return readdirSync(`/proc/${pid}/fd`).map((fd) => [fd, readlinkSync(`/proc/${pid}/fd/${fd}`)] as const);
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return ''; // it has ended
  }
}

function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  return `${rest.length + 2}${rest}`;
}

async function* pieces(bytes: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
}

/** The last block only when the gate opens. */
async function* slowly(bytes: Buffer, gate: Promise<void>): AsyncGenerator<Uint8Array> {
  yield bytes.subarray(0, 512);
  await gate;
  yield bytes.subarray(512);
}
