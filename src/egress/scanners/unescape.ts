import { append, codePointAt, type Layer, layerOf } from './layer.ts';

const named: ReadonlyMap<string, number> = new Map(Object.entries({ amp: 0x26, lt: 0x3c, gt: 0x3e, quot: 0x22, apos: 0x27, commat: 0x40, period: 0x2e, nbsp: 0x20, hyphen: 0x2d, dash: 0x2d, lowbar: 0x5f, plus: 0x2b, colon: 0x3a, num: 0x23, shy: 0xad, zwnj: 0x200c, zwj: 0x200d }));
const simple: ReadonlyMap<number, number> = new Map([['n', 10], ['r', 13], ['t', 9], ['b', 8], ['f', 12], ['"', 0x22], ['/', 0x2f], ['\\', 0x5c], ["'", 0x27]].map(([char, code]) => [(char as string).charCodeAt(0), code as number]));
const [percent, ampersand, backslash] = [0x25, 0x26, 0x5c];
const longestEntity = 10;

/**
 * One round of escapes undone: those of JSON, of URLs and of HTML, whatever they were used for. Texts mix them (a link in a string of JSON),
 * and who reads a body cannot know which of them its receiver will undo. Gives back the same layer when there was none.
 */
export function unescaped(layer: Layer): Layer {
  const { text } = layer;
  if (!/[%&\\]/.test(text)) return layer;
  const units = new Uint16Array(text.length);
  const starts = new Uint32Array(text.length);
  const ends = new Uint32Array(text.length);
  let size = 0;
  let changed = false;
  for (let at = 0; at < text.length; ) {
    const unit = text.charCodeAt(at);
    const escape = unit === percent || unit === ampersand || unit === backslash ? escapeAt(text, at, unit) : null;
    const length = escape?.length ?? 1;
    changed ||= escape !== null;
    const start = layer.starts === null ? at : layer.starts[at]!;
    const end = layer.ends === null ? at + length : layer.ends[at + length - 1]!;
    size = append(units, starts, ends, size, escape?.code ?? unit, start, end);
    at += length;
  }
  return changed ? layerOf(units, starts, ends, size) : layer;
}

interface Escape {
  readonly code: number;
  readonly length: number;
}

function escapeAt(text: string, at: number, unit: number): Escape | null {
  if (unit === percent) return percentAt(text, at);
  if (unit === ampersand) return entityAt(text, at);
  const next = text.charCodeAt(at + 1);
  if (next === 0x75) {
    const code = hexAt(text, at + 2, 4);
    if (code < 0) return null;
    const low = code >= 0xd800 && code < 0xdc00 && text.startsWith('\\u', at + 6) ? hexAt(text, at + 8, 4) : -1;
    return low >= 0xdc00 && low < 0xe000 ? { code: 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00), length: 12 } : { code, length: 6 };
  }
  const code = simple.get(next);
  return code === undefined ? null : { code, length: 2 };
}

function percentAt(text: string, at: number): Escape | null {
  const first = hexAt(text, at + 1, 2);
  if (first < 0x80) return first < 0 ? null : { code: first, length: 3 };
  const bytes = new Uint8Array(4);
  let count = 0;
  for (let i = at; count < 4 && text.charCodeAt(i) === percent; i += 3) {
    const byte = hexAt(text, i + 1, 2);
    if (byte < 0) break;
    bytes[count++] = byte;
  }
  const { code, length } = codePointAt(bytes.subarray(0, count), 0);
  return { code, length: length * 3 };
}

function entityAt(text: string, at: number): Escape | null {
  const end = text.slice(at + 1, at + 1 + longestEntity).indexOf(';');
  if (end < 2) return null;
  const name = text.slice(at + 1, at + 1 + end);
  const length = end + 2;
  const numeric = /^#(?:[xX]([0-9a-fA-F]{1,6})|(\d{1,7}))$/.exec(name);
  const code = numeric === null ? named.get(name.toLowerCase()) : numeric[1] === undefined ? Number(numeric[2]) : Number.parseInt(numeric[1], 16);
  return code === undefined || code > 0x10ffff ? null : { code, length };
}

/** Negative when there are other characters than hexadecimal digits. */
function hexAt(text: string, at: number, digits: number): number {
  let value = 0;
  for (let i = at; i < at + digits; i++) {
    const unit = text.charCodeAt(i) | 0x20;
    const digit = unit >= 0x30 && unit <= 0x39 && text.charCodeAt(i) >= 0x30 ? unit - 0x30 : unit >= 0x61 && unit <= 0x66 ? unit - 0x57 : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}
