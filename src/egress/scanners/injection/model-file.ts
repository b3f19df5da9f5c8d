import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Model } from './model.ts';
import type { PhraseView, TopicView } from './views.ts';

// magic, length of the header (32 bits, little endian), header (JSON), tables, SHA-256 of all that.
const MAGIC = Buffer.from('PDKINJ01');
const DIGEST_BYTES = 32;
const LARGEST_HEADER = 65_536;
const LARGEST_FILE = 16 * 2 ** 20;

interface PhraseHeader {
  readonly bits: number;
  readonly window: number;
  readonly bias: number;
  /** Of the table: the weight that ±127 stands for. */
  readonly peak: number;
}
interface TopicHeader {
  readonly bits: number;
  readonly dims: number;
  readonly windows: readonly number[];
  readonly hidden: number;
  readonly bias: number;
  readonly peak: number;
}
interface Header extends Pick<Model, 'name' | 'mix' | 'calibration'> {
  readonly phrases: readonly PhraseHeader[];
  readonly topics: readonly TopicHeader[];
}

/** The model that comes with the program. Throws when the file is missing, damaged or of another format. */
export function shippedModel(): Model {
  return decodeModel(readFileSync(new URL('weights.bin', import.meta.url)));
}

/** Throws an error that says what is wrong with the file: a model that is not exactly what was trained is not used. */
export function decodeModel(file: Buffer): Model {
  if (file.length < MAGIC.length + 4 + DIGEST_BYTES || file.length > LARGEST_FILE) throw new Error(`the injection model has ${file.length} bytes: it is not complete`);
  if (!file.subarray(0, MAGIC.length).equals(MAGIC)) throw new Error('the injection model is of another format: train it again with this version');
  const body = file.subarray(0, file.length - DIGEST_BYTES);
  if (!timingSafeEqual(createHash('sha256').update(body).digest(), file.subarray(body.length))) throw new Error('the injection model is damaged: its checksum does not match');
  const headerLength = body.readUInt32LE(MAGIC.length);
  const tables = MAGIC.length + 4 + headerLength;
  if (headerLength > LARGEST_HEADER || tables > body.length) throw new Error('the injection model is damaged: its header is longer than the file');
  const { phrases, topics, ...rest } = JSON.parse(body.toString('utf8', MAGIC.length + 4, tables)) as Header;
  let at = tables;
  const take = (length: number): Buffer => {
    if (!(length >= 0) || at + length > body.length) throw new Error('the injection model is damaged: a table is cut off');
    at += length;
    return body.subarray(at - length, at);
  };
  const floats = (count: number): Float32Array => Float32Array.from({ length: count }, ((bytes) => (_, i) => bytes.readFloatLE(i * 4))(take(count * 4)));
  const model: Model = {
    ...rest,
    phrases: phrases.map(({ peak, ...view }): PhraseView => ({ ...view, weights: expanded(take(2 ** view.bits), peak) })),
    topics: topics.map(({ peak, ...view }): TopicView => {
      const inputs = view.dims * (view.windows.length + 1);
      return { ...view, vectors: expanded(take(2 ** view.bits * view.dims), peak), mixing: floats(view.hidden * inputs), offsets: floats(view.hidden), output: floats(view.hidden) };
    }),
  };
  if (at !== body.length) throw new Error(`the injection model is damaged: ${body.length - at} bytes too many`);
  return model;
}

export function encodeModel({ phrases, topics, ...rest }: Model): Buffer {
  const header: Header = {
    ...rest,
    phrases: phrases.map(({ bits, window, bias, weights }) => ({ bits, window, bias, peak: peakOf(weights) })),
    topics: topics.map(({ bits, dims, windows, hidden, bias, vectors }) => ({ bits, dims, windows, hidden, bias, peak: peakOf(vectors) })),
  };
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  const floats = (values: Float32Array): Buffer => {
    const bytes = Buffer.alloc(values.length * 4);
    values.forEach((value, i) => bytes.writeFloatLE(value, i * 4));
    return bytes;
  };
  const body = Buffer.concat([
    MAGIC,
    length,
    json,
    ...phrases.map(({ weights }) => compressed(weights)),
    ...topics.flatMap(({ vectors, mixing, offsets, output }) => [compressed(vectors), floats(mixing), floats(offsets), floats(output)]),
  ]);
  return Buffer.concat([body, createHash('sha256').update(body).digest()]);
}

function peakOf(values: Float32Array): number {
  return Math.max(values.reduce((most, value) => Math.max(most, Math.abs(value)), 0), 1e-9);
}

/** One byte a weight, finer near zero: the square root of the weight's share of the peak. */
function compressed(values: Float32Array): Buffer {
  const peak = peakOf(values);
  return Buffer.from(Int8Array.from(values, (value) => Math.round(Math.sign(value) * Math.sqrt(Math.abs(value) / peak) * 127)).buffer);
}

function expanded(bytes: Buffer, peak: number): Float32Array {
  const byByte = Float32Array.from({ length: 256 }, (_, i) => {
    const share = (i < 128 ? i : i - 256) / 127;
    return Math.sign(share) * share * share * peak;
  });
  const values = new Float32Array(bytes.length);
  for (let i = 0; i < values.length; i++) values[i] = byByte[bytes[i]!]!;
  return values;
}
