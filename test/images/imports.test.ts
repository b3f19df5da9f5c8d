import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Laboratory } from '../host/laboratory.ts';
import { file, ImageBench, layerOf } from '../harness/images.ts';

const bench = new ImageBench();
const laboratory = new Laboratory({ images: bench.images });
before(() => laboratory.open());
after(async () => {
  bench[Symbol.dispose]();
  assert.deepEqual([await laboratory.close(), laboratory.complaints], [[], []]);
});

const hello = layerOf(file('bin/su', 'set-uid', { mode: 0o4755 }), file('home/u/x', 'mine', { uid: 1000, gid: 1000 }));

test('a host keeps an image that was unpacked for it as a layer, once', async () => {
  const request = bench.request(bench.layout([hello], { config: { Env: ['A=b'] } }));
  const [one, two] = [await laboratory.host.importImage(request, AbortSignal.timeout(60_000)), await laboratory.host.importImage(request, AbortSignal.timeout(60_000))];
  assert.deepEqual(one, two);
  assert.deepEqual(one.config.env, { A: 'b' });
  assert.equal(bench.progress.filter((line) => line.startsWith('pulled')).length, 1);
  const tree = join(laboratory.dataDir, 'layers', one.layer.id, 'tree');
  assert.equal(readFileSync(join(tree, 'home/u/x'), 'utf8'), 'mine');
  assert.deepEqual([statSync(join(tree, 'bin/su')).mode & 0o7777, statSync(join(tree, 'home/u/x')).uid, statSync(tree).mode & 0o777], [0o4755, 1000, 0o755]);
});

test('an image that is refused leaves no layer', async () => {
  const request = bench.request(bench.layout([hello, layerOf(file('../x'))]));
  await assert.rejects(laboratory.host.importImage(request, AbortSignal.timeout(60_000)), { code: 'image_unsafe' });
  const small = bench.request(bench.layout([layerOf(file('big', Buffer.alloc(3_000_000)))]), { maxBytes: 1_000_000 });
  await assert.rejects(laboratory.host.importImage(small, AbortSignal.timeout(60_000)), { code: 'image_too_large' });
  await laboratory.host.removeLayers(new Set());
});
