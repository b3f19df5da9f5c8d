import { append, codePointAt, type Layer, layerOf } from './layer.ts';
import { normalised } from './normalise.ts';
import { unescaped } from './unescape.ts';

/** How bytes are written: what they stand for, and where one value ends. A form is the query of a URL, too. */
export type Syntax = 'plain' | 'json' | 'form' | 'path';

/**
 * A body as a reader takes it: escapes undone, look-alikes of ASCII folded, invisible characters left out. Each character knows the bytes
 * that it came from, so that what is found here can be replaced there.
 */
export interface View {
  readonly text: string;
  readonly bytes: Buffer;
  readonly syntax: Syntax;
  /** Where the character at this place of the text begins in the bytes. */
  startOf(at: number): number;
  /** Where the character at this place of the text ends in the bytes. */
  endOf(at: number): number;
  /** JSON only: which bytes are in a string (`inside`, `closing`) and which are structure (`outside`, the opening quote too). */
  readonly places: Uint8Array | null;
}

export const outside = 0;
export const inside = 1;
export const closing = 2;

/** Escapes of escapes are undone this often: JSON in a string of JSON, a link in a text of JSON. */
const deepest = 3;

/**
 * Reads a body, or a piece of one.
 *
 * @param inString For JSON, whether the piece begins within a string.
 */
export function viewOf(bytes: Buffer, syntax: Syntax, inString = false): View {
  const { text, starts, ends } = normalised(decoded(bytes, syntax));
  return {
    text,
    bytes,
    syntax,
    startOf: (at) => (at >= text.length ? bytes.length : starts === null ? at : starts[at]!),
    endOf: (at) => (ends === null ? at + 1 : ends[at]!),
    places: syntax === 'json' ? placesOf(bytes, inString) : null,
  };
}

/** What was written in these bytes, as it was meant: with its escapes undone and nothing else. */
export function meaningOf(bytes: Buffer, syntax: Syntax): string {
  return decoded(bytes, syntax).text;
}

/** Characters as they are written, and with one round of escapes undone where the syntax has any. */
export function writtenCharacters(bytes: Buffer, syntax: Syntax): Layer {
  const layer = charactersOf(bytes);
  return syntax === 'plain' ? layer : unescaped(layer);
}

function decoded(bytes: Buffer, syntax: Syntax): Layer {
  let layer = charactersOf(bytes);
  if (syntax === 'form') layer = { ...layer, text: layer.text.replaceAll('+', ' ') };
  for (let depth = 0; depth < deepest; depth++) {
    const next = unescaped(layer);
    if (next === layer) break;
    layer = next;
  }
  return layer;
}

/** UTF-8; a byte that is none stands for itself as in Latin-1. */
function charactersOf(bytes: Buffer): Layer {
  const latin = bytes.toString('latin1');
  if (!/[\u0080-\u00ff]/.test(latin)) return { text: latin, starts: null, ends: null };
  const units = new Uint16Array(bytes.length);
  const starts = new Uint32Array(bytes.length);
  const ends = new Uint32Array(bytes.length);
  let size = 0;
  for (let at = 0; at < bytes.length; ) {
    const { code, length } = codePointAt(bytes, at);
    size = append(units, starts, ends, size, code, at, at + length);
    at += length;
  }
  return layerOf(units, starts, ends, size);
}

const [quote, backslash, newline] = [0x22, 0x5c, 0x0a];

/** A string of JSON has no line break in it: an unbalanced quote is forgotten at the next one, and lines of JSON are read one by one. */
function placesOf(bytes: Buffer, startsInString: boolean): Uint8Array {
  const places = new Uint8Array(bytes.length);
  let within = startsInString;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    if (!within) {
      within = byte === quote;
      continue;
    }
    if (byte === quote || byte === newline) {
      within = false;
      places[at] = closing;
      continue;
    }
    places[at] = inside;
    if (byte === backslash && at + 1 < bytes.length && bytes[at + 1] !== newline) places[++at] = inside;
  }
  return places;
}
