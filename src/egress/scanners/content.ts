import { isTransformable } from './transformations.ts';
import type { Syntax } from './view.ts';

/** How a body is to be looked into. */
export type Content =
  | { readonly kind: 'text'; readonly syntax: Exclude<Syntax, 'path'> }
  | { readonly kind: 'multipart'; readonly boundary: string }
  /** Not text: passes untouched. */
  | { readonly kind: 'binary' }
  /** Text that cannot be read: in an encoding other than UTF-8, ASCII or Latin-1. */
  | { readonly kind: 'unreadable'; readonly why: string };

const readable: ReadonlySet<string> = new Set(['', 'utf-8', 'utf8', 'us-ascii', 'ascii', 'iso-8859-1', 'latin1', 'windows-1252', 'iso-8859-15']);

/** Bytes by which a body is told whose type does not say that it is text, and by which one whose type does. */
const [longBeginning, shortBeginning] = [512, 2];

/** How many bytes of a body `contentOf` needs. */
export function beginningNeeded(contentType: string): number {
  const type = contentType.split(';', 1)[0]!.trim().toLowerCase();
  return type !== '' && type !== 'application/octet-stream' && (type.startsWith('multipart/') || isTransformable(type, Buffer.alloc(0))) ? shortBeginning : longBeginning;
}

/** What a body is, by its `Content-Type` and by how it begins: text is text whatever its type says. */
export function contentOf(contentType: string, beginning: Buffer): Content {
  const type = contentType.split(';', 1)[0]!.trim().toLowerCase();
  if (type.startsWith('multipart/')) {
    const boundary = parameter(contentType, 'boundary');
    return boundary === null || boundary.length > 70 || boundary === '' ? { kind: 'unreadable', why: 'it is multipart without a boundary that can be used' } : { kind: 'multipart', boundary };
  }
  const charset = (parameter(contentType, 'charset') ?? '').toLowerCase();
  const utf16 = beginning.length > 1 && ((beginning[0] === 0xff && beginning[1] === 0xfe) || (beginning[0] === 0xfe && beginning[1] === 0xff));
  if (!isTransformable(type, utf16 ? Buffer.alloc(0) : beginning) && !looksLikeText(beginning)) return { kind: 'binary' };
  if (!readable.has(charset) || utf16) return { kind: 'unreadable', why: `its characters are in ${charset === '' ? 'UTF-16' : charset.slice(0, 40)}` };
  if (type === 'application/x-www-form-urlencoded') return { kind: 'text', syntax: 'form' };
  const json = /(?:^|[/+.-])(?:json|ndjson|jsonl|x-ndjson)$/.test(type) || (type === '' && /^\s*[[{]/.test(beginning.subarray(0, 64).toString('latin1')));
  return { kind: 'text', syntax: json ? 'json' : 'plain' };
}

/** UTF-8 without control characters, perhaps cut within a character. */
function looksLikeText(beginning: Buffer): boolean {
  if (beginning.length === 0) return false;
  // oxlint-disable-next-line no-control-regex
  return !/[\0-\x08\x0e-\x1a\x1c-\x1f\ufffd]/.test(beginning.toString('utf8').replace(/\ufffd{1,3}$/, ''));
}

function parameter(contentType: string, name: string): string | null {
  for (const match of contentType.slice(0, 1000).matchAll(/;\s{0,8}([\w-]{1,40})=(?:"([^"]{0,200})"|([^\s;"]{0,200}))/g)) {
    if (match[1]!.toLowerCase() === name) return match[2] ?? match[3] ?? '';
  }
  return null;
}
