import { closing, inside, meaningOf, outside, type Syntax, type View, viewOf } from '../view.ts';
import { findPii, type PiiOptions } from './find.ts';
import { longestHit, type PiiType } from './types.ts';

/** What to put in the place of a value; null to leave it. */
export type Replace = (type: PiiType, value: string) => string | null;

/** Bytes from `start` up to `end` that hold personal data. */
export interface Edit {
  readonly start: number;
  readonly end: number;
  /** What they become: null for what stays. To be called only for what is really sent, because it gives out tokens. */
  readonly replacement: () => Buffer | null;
  readonly types: readonly PiiType[];
}

/** base64 in base64 is opened, base64 in that is not. */
const deepestBase64 = 2;
const shortestBase64 = 12;

/** What of a view is personal data, in order and without overlaps. The document stays one of its kind. */
export function editsOf(view: View, options: PiiOptions, replace: Replace, depth = 0): Edit[] {
  const edits: Edit[] = [];
  for (const { type, start, end } of findPii(view.text, options)) {
    const place = placed(view, view.startOf(start), view.endOf(end - 1));
    if (place === null) continue;
    const raw = view.bytes.subarray(place.start, place.end);
    const replacement = (): Buffer | null => {
      const token = replace(type, meaningOf(raw, view.syntax));
      return token === null ? null : Buffer.from(spelled(token, raw, view.syntax, place.bare));
    };
    edits.push({ start: place.start, end: place.end, replacement, types: [type] });
  }
  if (depth >= deepestBase64) return edits;
  const packed = packedEdits(view, edits, options, replace, depth);
  return packed.length === 0 ? edits : [...edits, ...packed].sort((a, b) => a.start - b.start);
}

/** The bytes with the edits made. */
export function edited(bytes: Buffer, edits: readonly Edit[]): Buffer {
  const pieces: Buffer[] = [];
  let from = 0;
  for (const edit of edits) {
    const replacement = edit.replacement();
    if (replacement === null) continue;
    pieces.push(bytes.subarray(from, edit.start), replacement);
    from = edit.end;
  }
  return pieces.length === 0 ? bytes : Buffer.concat([...pieces, bytes.subarray(from)]);
}

/** In JSON a value lies within one string, or is a whole number; what reaches over a border is no value. */
function placed({ places, bytes }: View, start: number, end: number): { start: number; end: number; bare: boolean } | null {
  if (places === null) return { start, end, bare: false };
  const first = places[start]!;
  if (first === closing) return null;
  for (let at = start + 1; at < end; at++) if (places[at] !== first) return null;
  if (first === inside) return { start, end, bare: false };
  while (start > 0 && places[start - 1] === outside && isNumeral(bytes[start - 1]!)) start--;
  while (end < bytes.length && places[end] === outside && isNumeral(bytes[end]!)) end++;
  for (let at = start; at < end; at++) if (!isNumeral(bytes[at]!)) return null;
  return { start, end, bare: true };
}

/** Digits, sign, point and exponent. */
function isNumeral(byte: number): boolean {
  return (byte >= 0x30 && byte <= 0x39) || byte === 0x2b || byte === 0x2d || byte === 0x2e || (byte | 0x20) === 0x65;
}

function spelled(token: string, raw: Buffer, syntax: Syntax, bare: boolean): string {
  if (bare) return JSON.stringify(token);
  return inUrl(raw, syntax) ? encodeURIComponent(token) : token;
}

/** Part of a URL by its syntax, or by how it is written. */
function inUrl(raw: Buffer, syntax: Syntax): boolean {
  return syntax === 'form' || syntax === 'path' || raw.includes(0x25);
}

/** Texts in base64 that hold something. */
function packedEdits(view: View, taken: readonly Edit[], options: PiiOptions, replace: Replace, depth: number): Edit[] {
  const edits: Edit[] = [];
  let next = 0;
  for (const [, start, end] of base64Runs(view.text)) {
    const [from, to] = [view.startOf(start), view.endOf(end - 1)];
    while (next < taken.length && taken[next]!.end <= from) next++;
    if (next < taken.length && taken[next]!.start < to) continue;
    const text = view.text.slice(start, end);
    const inner = Buffer.from(text, 'base64');
    if (!isText(inner)) continue;
    const found = editsOf(viewOf(inner, inner[0] === 0x7b || inner[0] === 0x5b ? 'json' : 'plain'), options, replace, depth + 1);
    if (found.length === 0 || placed(view, from, to)?.bare !== false) continue;
    const raw = view.bytes.subarray(from, to);
    const replacement = (): Buffer | null => {
      const changed = edited(inner, found);
      return changed === inner ? null : Buffer.from(packed(changed, text, raw, view.syntax));
    };
    edits.push({ start: from, end: to, replacement, types: found.flatMap(({ types }) => types) });
  }
  return edits;
}

function packed(bytes: Buffer, like: string, raw: Buffer, syntax: Syntax): string {
  let text = bytes.toString(/[-_]/.test(like) ? 'base64url' : 'base64');
  if (/[-_]/.test(like) && like.endsWith('=')) text = text.padEnd(Math.ceil(text.length / 4) * 4, '=');
  if (!like.endsWith('=') && like.length % 4 !== 0) text = text.replace(/=+$/, '');
  return inUrl(raw, syntax) ? encodeURIComponent(text) : text;
}

/** Runs of the characters of base64, with what pads them. */
function* base64Runs(text: string): Iterable<[length: number, start: number, end: number]> {
  for (let at = 0; at < text.length; at++) {
    if (!isBase64(text.charCodeAt(at))) continue;
    const start = at;
    while (at < text.length && isBase64(text.charCodeAt(at))) at++;
    let end = at;
    while (end - at < 2 && text.charCodeAt(end) === 0x3d) end++;
    const length = at - start;
    if (length >= shortestBase64 && length <= longestHit - 2 && length % 4 !== 1) yield [length, start, end];
    at = end;
  }
}

function isBase64(unit: number): boolean {
  return (unit >= 0x30 && unit <= 0x39) || ((unit | 0x20) >= 0x61 && (unit | 0x20) <= 0x7a) || unit === 0x2b || unit === 0x2f || unit === 0x2d || unit === 0x5f;
}

/** Without control characters, and UTF-8. Decided at the first byte that is not, which with random bytes comes soon. */
function isText(bytes: Buffer): boolean {
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at]!;
    if ((byte < 0x20 && byte !== 9 && byte !== 10 && byte !== 13) || byte === 0x7f || byte >= 0xf5) return false;
    if (byte >= 0x80 && (at === 0 || bytes[at - 1]! < 0x80) && byte < 0xc2) return false;
  }
  return bytes.length > 0;
}
