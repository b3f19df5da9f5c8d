import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { BuildFailure } from '../../src/core/templates/build-host.ts';
import { runTool } from '../../src/host/tool.ts';
import { architecture, type BuiltImage, descriptorOf, file, hardLink, ImageBench, imageOf, indexOf, layerOf, layoutFiles, ociIndex, ociManifest, symlink, writeFiles } from '../harness/images.ts';

function fails(code: BuildFailure['code'], text: RegExp): (reason: unknown) => boolean {
  return (reason) => {
    assert.ok(reason instanceof BuildFailure, String((reason as Error).stack));
    assert.deepEqual({ code: reason.code, says: text.test(reason.message) }, { code, says: true }, reason.message);
    return true;
  };
}

const holding = (text: string): BuiltImage => imageOf([layerOf(file('which', text))]);
const named = (image: BuiltImage, name: string): object => ({ ...descriptorOf(image.manifest, ociManifest), annotations: { 'org.opencontainers.image.ref.name': name } });
const which = (tree: string): string => readFileSync(join(tree, 'which'), 'utf8');

describe('an OCI image layout', () => {
  test('holds images by tag, in a directory or a tar of one', async () => {
    using bench = new ImageBench();
    const [one, two] = [holding('one'), holding('two')];
    const files = layoutFiles({ schemaVersion: 2, manifests: [named(one, '1'), named(two, 'example.org/app:2')] }, [...one.blobs, ...two.blobs]);
    const dir = join(bench.dir, 'layout');
    writeFiles(dir, files);
    const tar = join(bench.dir, 'layout.tar');
    writeFileSync(tar, layerOf(...files));
    for (const path of [dir, tar]) {
      assert.equal(which(await bench.pull(`oci:${path}:1`)), 'one');
      assert.equal(which(await bench.pull(`oci:${path}:2`)), 'two');
      await assert.rejects(bench.pull(`oci:${path}`), fails('bad_reference', /has several images: name one of "1", "example\.org\/app:2"/));
      await assert.rejects(bench.pull(`oci:${path}:3`), fails('bad_reference', /has no image 3; there is "1", /));
    }
    const found = await bench.images.find(bench.request(`oci:${tar}:2`), AbortSignal.timeout(10_000));
    assert.equal(found.digest, two.manifest.digest);
  });

  test('holds an index of platforms, or several entries with platforms', async () => {
    using bench = new ImageBench();
    const image = holding('mine');
    const foreign = imageOf([], { platform: { architecture: 'riscv64' } });
    const index = indexOf({ image: foreign.manifest, os: 'linux', architecture: 'riscv64' }, { image: image.manifest, os: 'linux', architecture });
    const blobs = [...image.blobs, ...foreign.blobs, index];
    writeFiles(join(bench.dir, 'nested'), layoutFiles({ schemaVersion: 2, manifests: [descriptorOf(index, ociIndex)] }, blobs));
    writeFiles(join(bench.dir, 'flat'), layoutFiles(JSON.parse(index.bytes.toString()) as object, blobs));
    for (const name of ['nested', 'flat']) assert.equal(which(await bench.pull(`oci:${bench.dir}/${name}`)), 'mine');
  });

  test('is not believed: blobs are checked, links in their place are not followed', async () => {
    using bench = new ImageBench();
    const image = holding('x');
    const reference = bench.layout([layerOf(file('which', 'x'))]);
    const dir = reference.slice('oci:'.length);
    const blob = join(dir, 'blobs', image.config.digest.replace(':', '/'));
    const content = readFileSync(blob);
    writeFileSync(blob, Buffer.alloc(content.length, 0x20));
    await assert.rejects(bench.pull(reference), fails('image_pull_failed', /sent something else for sha256:/));
    truncateSync(blob, 3);
    await assert.rejects(bench.pull(reference), fails('image_pull_failed', /has 3 of the \d+ bytes of sha256:/));
    rmSync(blob);
    await assert.rejects(bench.pull(reference), fails('image_pull_failed', /does not have sha256:/));
    writeFileSync(join(bench.dir, 'elsewhere'), content);
    symlinkSync(join(bench.dir, 'elsewhere'), blob);
    await assert.rejects(bench.pull(reference), fails('image_pull_failed', /cannot be read: ELOOP/));
    rmSync(blob);
    await runTool('mkfifo', [blob]);
    await assert.rejects(bench.pull(reference), fails('image_pull_failed', /is no file/));
  });

  test('that is none is said to be none, without a word of what was there', async () => {
    using bench = new ImageBench();
    mkdirSync(join(bench.dir, 'empty'));
    writeFiles(join(bench.dir, 'text'), [file('index.json', 'root:x:0:0')]);
    await assert.rejects(bench.pull(`oci:${bench.dir}/empty`), fails('image_pull_failed', /is no OCI image layout: it has no index\.json/));
    await assert.rejects(bench.pull(`oci:${bench.dir}/text`), fails('image_pull_failed', /is no JSON object$/));
    await assert.rejects(bench.pull(`oci:${bench.dir}/missing`), fails('image_pull_failed', /cannot be read: ENOENT/));
    await assert.rejects(bench.pull('oci:/dev/zero'), fails('image_pull_failed', /is neither a directory nor a file/));
    await assert.rejects(bench.pull(`oci:${bench.dir}/empty`, { allowPaths: false }), fails('bad_reference', /only its operator may/));
  });

  test('that changes between the look and the unpacking is refused', async () => {
    using bench = new ImageBench();
    const dir = join(bench.dir, 'changing');
    const write = (image: BuiltImage): void => writeFiles(dir, layoutFiles({ schemaVersion: 2, manifests: [descriptorOf(image.manifest, ociManifest)] }, image.blobs));
    write(holding('before'));
    const found = await bench.images.find(bench.request(`oci:${dir}`), AbortSignal.timeout(10_000));
    write(holding('after'));
    await assert.rejects(found.unpack(bench.emptyDirectory(), AbortSignal.timeout(10_000)), fails('image_pull_failed', /has changed since it was looked at/));
  });
});

describe('what docker save writes', () => {
  const tars = [layerOf(file('which', 'lower'), file('low')), layerOf(file('which', 'upper'))];
  const image = imageOf(tars, { config: { Env: ['A=b'] } });

  test('is an image: with layers in directories of their own, linked when they are alike, compressed or not', async () => {
    using bench = new ImageBench();
    const path = join(bench.dir, 'saved.tar');
    const manifest = [
      { Config: 'config.json', RepoTags: ['team/app:1', 'team/app:latest'], Layers: ['a/layer.tar', 'b/layer.tar'] },
      { Config: 'config.json', RepoTags: ['linked:1'], Layers: ['c/layer.tar', 'd/layer.tar'] },
    ];
    writeFileSync(path, layerOf(file('a/layer.tar', tars[0]!), file('b/layer.tar', gzipSync(tars[1]!)), symlink('c/layer.tar', '../a/layer.tar'), hardLink('d/layer.tar', 'b/layer.tar'), file('config.json', image.config.bytes), file('manifest.json', JSON.stringify(manifest))));
    for (const tag of ['1', 'team/app:1', 'team/app', 'linked:1']) {
      if (tag === '1') await assert.rejects(bench.pull(`docker-archive:${path}:1`), fails('bad_reference', /has several images called 1: name one of "team\/app:1"/));
      else assert.equal(which(await bench.pull(`docker-archive:${path}:${tag}`)), 'upper', tag);
    }
    const found = await bench.images.find(bench.request(`docker-archive:${path}:team/app`), AbortSignal.timeout(10_000));
    assert.deepEqual([found.digest, found.config.env], [image.config.digest, { A: 'b' }]);
    await assert.rejects(bench.pull(`docker-archive:${path}`), fails('bad_reference', /has several images: name one of/));
    await assert.rejects(bench.pull(`docker-archive:${path}:none`), fails('bad_reference', /has no image none; there is "team\/app:1"/));
  });

  test('is refused when a layer is another one than its configuration names, when it is not whole, or no tar', async () => {
    using bench = new ImageBench();
    const save = (name: string, ...layers: readonly Buffer[]): string => {
      const path = join(bench.dir, name);
      const manifest = [{ Config: 'config.json', RepoTags: null, Layers: layers.map((_, i) => `${i}.tar`) }];
      writeFileSync(path, layerOf(...layers.map((layer, i) => file(`${i}.tar`, layer)), file('config.json', image.config.bytes), file('manifest.json', JSON.stringify(manifest))));
      return `docker-archive:${path}`;
    };
    assert.equal(which(await bench.pull(save('good', ...tars))), 'upper');
    await assert.rejects(bench.pull(save('swapped', tars[1]!, tars[0]!)), fails('image_pull_failed', /layer 1 of 2 is not what the image's configuration says/));
    await assert.rejects(bench.pull(save('fewer', tars[0]!)), fails('image_pull_failed', /has 1 layers, and 2 in its configuration/));
    truncateSync(join(bench.dir, 'good'), 3000);
    await assert.rejects(bench.pull(`docker-archive:${bench.dir}/good`), fails('image_pull_failed', /is a tar that ends too early|has no manifest\.json/));
    writeFileSync(join(bench.dir, 'packed'), gzipSync(tars[0]!));
    await assert.rejects(bench.pull(`docker-archive:${bench.dir}/packed`), fails('image_pull_failed', /is no tar: decompress it if it is compressed/));
    writeFileSync(join(bench.dir, 'layer'), tars[0]!);
    await assert.rejects(bench.pull(`docker-archive:${bench.dir}/layer`), fails('image_pull_failed', /is not what docker save writes, or is not whole: it has no manifest\.json/));
  });
});
