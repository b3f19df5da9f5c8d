/** Characters with the places in the bytes that they came from. Without places, character and byte are one. */
export interface Layer {
  readonly text: string;
  readonly starts: Uint32Array | null;
  readonly ends: Uint32Array | null;
}

/** The character that begins here, and how many bytes it takes. */
export function codePointAt(bytes: Uint8Array, at: number): { code: number; length: number } {
  const first = bytes[at]!;
  const length = first < 0xc2 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 1;
  if (length === 1 || at + length > bytes.length) return { code: first, length: 1 };
  let code = first & (0xff >> (length + 1));
  for (let i = 1; i < length; i++) {
    const byte = bytes[at + i]!;
    if ((byte & 0xc0) !== 0x80) return { code: first, length: 1 };
    code = (code << 6) | (byte & 0x3f);
  }
  const overlong = (length === 3 && code < 0x800) || (length === 4 && (code < 0x10000 || code > 0x10ffff));
  return overlong ? { code: first, length: 1 } : { code, length };
}

/** Adds a code point, as one unit or two, that came from these bytes. */
export function append(units: Uint16Array, starts: Uint32Array, ends: Uint32Array, size: number, code: number, start: number, end: number): number {
  if (code > 0xffff) {
    units[size] = 0xd800 + ((code - 0x10000) >> 10);
    starts[size] = start;
    ends[size++] = end;
    code = 0xdc00 + ((code - 0x10000) & 0x3ff);
  }
  units[size] = code;
  starts[size] = start;
  ends[size++] = end;
  return size;
}

export function layerOf(units: Uint16Array, starts: Uint32Array, ends: Uint32Array, size: number): Layer {
  return { text: Buffer.from(units.buffer, units.byteOffset, size * 2).toString('utf16le'), starts, ends };
}
