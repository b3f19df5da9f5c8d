import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { decodeModel, encodeModel } from './model-file.ts';
import type { Model } from './model.ts';

const BITS = 6;

const model: Model = {
  name: 'test',
  phrases: [{ bits: BITS, window: 4, bias: -0.5, weights: Float32Array.from({ length: 2 ** BITS }, (_, i) => Math.sin(i) * 3) }],
  topics: [
    {
      bits: BITS,
      dims: 4,
      windows: [3],
      hidden: 2,
      vectors: Float32Array.from({ length: 4 * 2 ** BITS }, (_, i) => Math.cos(i)),
      mixing: Float32Array.from({ length: 16 }, (_, i) => i / 8),
      offsets: Float32Array.of(0.5, -0.5),
      output: Float32Array.of(1, 2),
      bias: 0.125,
    },
  ],
  mix: { weights: [1, 0.5], bias: 0.25 },
  calibration: [
    [-1, 0.1],
    [1, 0.9],
  ],
};

function sealed(body: Buffer): Buffer {
  return Buffer.concat([body, createHash('sha256').update(body).digest()]);
}

test('a model comes back from its file as it was, tables to one part in 60', () => {
  const { phrases, topics, ...rest } = decodeModel(encodeModel(model));
  assert.deepEqual(rest, { name: model.name, mix: model.mix, calibration: model.calibration });
  assert.equal(phrases[0]!.window, 4);
  for (const [i, weight] of model.phrases[0]!.weights.entries()) assert.ok(Math.abs(phrases[0]!.weights[i]! - weight) <= 0.05);
  for (const [i, value] of model.topics[0]!.vectors.entries()) assert.ok(Math.abs(topics[0]!.vectors[i]! - value) <= 1 / 60);
  assert.deepEqual(topics[0]!.mixing, model.topics[0]!.mixing);
  assert.deepEqual([topics[0]!.dims, topics[0]!.hidden, topics[0]!.bias, topics[0]!.windows], [4, 2, 0.125, [3]]);
});

test('the same model gives the same bytes', () => {
  assert.deepEqual(encodeModel(model), encodeModel(structuredClone(model)));
});

test('tampering: a model file with any one bit changed is refused', () => {
  const file = encodeModel(model);
  for (let at = 0; at < file.length; at++) {
    const changed = Buffer.from(file);
    changed[at] = changed[at]! ^ (1 << (at % 8));
    assert.throws(() => decodeModel(changed), /^Error: the injection model is (?:damaged|of another format)/, `byte ${at}`);
  }
});

test('tampering: a model file cut short or with something behind it is refused', () => {
  const file = encodeModel(model);
  for (const length of [0, 7, 20, 43, 100, file.length - 1]) assert.throws(() => decodeModel(file.subarray(0, length)), /^Error: the injection model/, `${length} bytes`);
  assert.throws(() => decodeModel(Buffer.concat([file, Buffer.of(0)])), /its checksum does not match/);
});

test('tampering: a checksum that fits does not make a model of tables that do not', () => {
  const body = encodeModel(model).subarray(0, -32);
  assert.throws(() => decodeModel(sealed(body.subarray(0, -3))), /a table is cut off/);
  assert.throws(() => decodeModel(sealed(Buffer.concat([body, Buffer.alloc(5)]))), /5 bytes too many/);
  const header = Buffer.from(body);
  header.writeUInt32LE(0x7fffffff, 8);
  assert.throws(() => decodeModel(sealed(header)), /its header is longer than the file/);
  assert.throws(() => decodeModel(Buffer.alloc(20 * 2 ** 20)), /it is not complete/);
});
