import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { volumePathProblem } from '../../../core/volume.ts';
import { codeOf } from '../tree.ts';
import { decodeManifest, encodeManifest, type Manifest } from './manifest.ts';
import { below, emptyDir, TreeEdit, type DirNode } from './tree.ts';

let count = 0;
const stamp = () => ({ modifiedAt: 1000, version: `v-${count++}` });
const name = fc.oneof(fc.constantFrom('a', 'b', 'c'), fc.string({ unit: 'binary', minLength: 1, maxLength: 6 })).filter((text) => volumePathProblem(text) === null && !text.includes('/') && text !== '.');
const path = fc.array(name, { minLength: 1, maxLength: 4 });
const change = fc.oneof(
  fc.record({ kind: fc.constant('put' as const), path, bytes: fc.nat(100) }),
  fc.record({ kind: fc.constant('makeDir' as const), path }),
  fc.record({ kind: fc.constant('remove' as const), path, recursive: fc.boolean() }),
  fc.record({ kind: fc.constant('rename' as const), path, to: path }),
);

/** In the words of the file system, as a tree is compared. */
const shown = (root: DirNode): unknown[] => [...below(root)].map(({ path, node }) => [path, node.type, node.version, node.type === 'file' ? node.chunks : null]);

test('whatever is done to a tree: what it grew by is what it has, what it began with is as it was, and it is read back as written', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 30 }), async (changes) => {
      let root = emptyDir(stamp());
      let usage = { bytes: 0, entries: 0 };
      const live = new Set<string>();
      for (const each of changes) {
        const before = shown(root);
        const edit = new TreeEdit(root, stamp);
        try {
          if (each.kind === 'put') {
            const chunk = { id: `c-${count++}`, bytes: each.bytes, sha256: 'x' };
            edit.put(each.path, { type: 'file', chunks: [chunk], size: each.bytes, mode: 0o644, ...stamp() });
            live.add(chunk.id);
          } else if (each.kind === 'makeDir') edit.makeDir(each.path);
          else if (each.kind === 'remove') edit.remove(each.path, each.recursive);
          else edit.rename(each.path, each.to);
        } catch (error) {
          assert.match(codeOf(error) ?? String(error), /^E(NOENT|NOTDIR|ISDIR|NOTEMPTY|INVAL)$/);
          assert.deepEqual(shown(root), before);
          continue;
        }
        assert.deepEqual(shown(root), before);
        root = edit.root;
        usage = { bytes: usage.bytes + edit.grown.bytes, entries: usage.entries + edit.grown.entries };
        for (const { id } of edit.freed) assert.ok(live.delete(id), 'freed twice');
      }
      const nodes = [...below(root)].map(({ node }) => node);
      assert.deepEqual(usage, { bytes: nodes.reduce((sum, node) => sum + (node.type === 'file' ? node.size : 0), 0), entries: nodes.length });
      assert.deepEqual(new Set(nodes.flatMap((node) => (node.type === 'file' ? node.chunks.map(({ id }) => id) : []))), live);
      const manifest: Manifest = { root, usage, revision: 'r-1' };
      const read = await decodeManifest(await encodeManifest(manifest));
      assert.deepEqual([shown(read.root), read.usage, read.revision, read.root.version], [shown(root), usage, 'r-1', root.version]);
    }),
    { numRuns: 150 },
  );
});

test('a manifest that is cut off anywhere is not taken for a smaller volume', async () => {
  const edit = new TreeEdit(emptyDir(stamp()), stamp);
  for (let i = 0; i < 20; i++) edit.put(['d', `f${i}`], { type: 'file', chunks: [], size: 0, mode: 0o644, ...stamp() });
  const packed = await encodeManifest({ root: edit.root, usage: edit.grown, revision: 'r' });
  for (let length = 0; length < packed.length; length += 7) await assert.rejects(decodeManifest(packed.subarray(0, length)), `${length} bytes`);
});

test('the largest volume there may be is written and read while other work goes on', async () => {
  const edit = new TreeEdit(emptyDir(stamp()), stamp);
  for (let i = 0; i < 99_000; i++) edit.put([`d${i % 10}`, `a file with some name ${i}`], { type: 'file', chunks: [{ id: `0123456789ab-${i.toString(36)}`, bytes: 1, sha256: Buffer.alloc(32, i).toString('base64') }], size: 1, mode: 0o644, ...stamp() });
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const read = await decodeManifest(await encodeManifest({ root: edit.root, usage: edit.grown, revision: 'r' }));
  clearInterval(timer);
  assert.deepEqual(read.usage, { bytes: 99_000, entries: 99_010 });
  assert.ok(turns > 10, `only ${turns} turns of the event loop`);
});
