import { ignorable } from './ignorable.ts';
import { append, type Layer, layerOf } from './layer.ts';

/** Zeros of the decimal digits of scripts that people type numbers in. */
const zeros: readonly number[] = [0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66, 0x0e50, 0x0ed0, 0x0f20, 0x1040, 0x17e0];

/**
 * The text with look-alikes of ASCII as ASCII (full-width and mathematical letters and digits, digits of other scripts, dashes, spaces), and
 * without what nobody sees. Only for finding: the bytes behind it stay as they are.
 */
export function normalised(layer: Layer): Layer {
  const { text } = layer;
  if (!/[\u0080-\uffff\0]/.test(text)) return layer;
  const units = new Uint16Array(text.length);
  const starts = new Uint32Array(text.length);
  const ends = new Uint32Array(text.length);
  let size = 0;
  for (let at = 0; at < text.length; ) {
    const code = text.codePointAt(at)!;
    const length = code > 0xffff ? 2 : 1;
    const seen = code < 0x80 ? code || -1 : folded(code);
    if (seen >= 0) {
      const start = layer.starts === null ? at : layer.starts[at]!;
      const end = layer.ends === null ? at + length : layer.ends[at + length - 1]!;
      size = append(units, starts, ends, size, seen, start, end);
    }
    at += length;
  }
  return layerOf(units, starts, ends, size);
}

/** The character that this one is taken for; negative for none. */
function folded(code: number): number {
  if (ignorable(code)) return -1;
  if (code === 0xa0 || (code >= 0x2000 && code <= 0x200a) || code === 0x202f || code === 0x205f || code === 0x3000) return 0x20;
  if ((code >= 0x2010 && code <= 0x2015) || code === 0x2212 || code === 0xfe58 || code === 0xfe63) return 0x2d;
  if (code === 0x2028 || code === 0x2029 || code === 0x85) return 0x0a;
  if (code === 0x3002 || code === 0xff61 || code === 0xfe52) return 0x2e;
  if (code >= 0xff01 && code <= 0xff5e) return code - 0xfee0;
  if (code === 0xfe6b) return 0x40;
  if ((code >= 0x2460 && code <= 0x2468) || (code >= 0x2070 && code <= 0x2089) || (code >= 0x1d400 && code <= 0x1d7ff) || code === 0xb2 || code === 0xb3 || code === 0xb9) {
    const plain = String.fromCodePoint(code).normalize('NFKC');
    return plain.length === 1 ? plain.charCodeAt(0) : code;
  }
  if (code >= 0x660 && code < 0x17f0) {
    const zero = zeros.find((zero) => code >= zero && code < zero + 10);
    if (zero !== undefined) return 0x30 + code - zero;
  }
  return code;
}
