import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { codingsOf, decoded } from './content-coding.ts';

const body = Buffer.from('some text, and more of it. '.repeat(5000));
const inPieces = (bytes: Buffer, size = 777): Readable => Readable.from(Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size)));

for (const [name, pack] of Object.entries({ gzip: gzipSync, deflate: deflateSync, br: brotliCompressSync, zstd: zstdCompressSync })) {
  test(`${name} is undone`, async () => assert.deepEqual(await buffer(decoded(inPieces(pack(body)), codingsOf(name))), body));
  test(`${name} that is cut off is an error`, async () => {
    const packed = pack(body);
    await assert.rejects(buffer(decoded(inPieces(packed.subarray(0, packed.length - 9)), codingsOf(name))));
  });
}

test('deflate without its frame, and codings of codings', async () => {
  assert.deepEqual(await buffer(decoded(inPieces(deflateRawSync(body)), ['deflate'])), body);
  assert.deepEqual(await buffer(decoded(inPieces(brotliCompressSync(gzipSync(body))), codingsOf('gzip, identity, br'))), body);
});

test('a coding that is not known, or too many of them, are refused', () => {
  for (const codings of ['compress', 'gzip, dcb', 'gzip, gzip, gzip, gzip']) assert.throws(() => codingsOf(codings), { code: 'unreadable_response' });
});

test('a bomb is an error long before its end', async () => {
  let size = 0;
  const stream = decoded(inPieces(gzipSync(Buffer.alloc(300 << 20))), ['gzip']);
  stream.on('data', (chunk: Buffer) => (size += chunk.length));
  await assert.rejects(new Promise((resolve, reject) => stream.on('end', resolve).on('error', reject)), { code: 'unreadable_response' });
  assert.ok(size < 70 << 20);
});
