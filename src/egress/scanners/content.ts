import { isTransformable } from './transformations.ts';
import type { Syntax } from './view.ts';

/** How a body is to be looked into. */
export type Content =
  | { readonly kind: 'text'; readonly syntax: Syntax }
  | { readonly kind: 'multipart'; readonly boundary: string }
  /** Not text: passes untouched. */
  | { readonly kind: 'binary' }
  /** Text that cannot be read: in an encoding other than UTF-8, ASCII or Latin-1. */
  | { readonly kind: 'unreadable'; readonly why: string };

const readable: ReadonlySet<string> = new Set(['', 'utf-8', 'utf8', 'us-ascii', 'ascii', 'iso-8859-1', 'latin1', 'windows-1252', 'iso-8859-15']);

/** What a body is, by its `Content-Type` and, where that says nothing, by how it begins. */
export function contentOf(contentType: string, beginning: Buffer): Content {
  const type = contentType.split(';', 1)[0]!.trim().toLowerCase();
  if (type.startsWith('multipart/')) {
    const boundary = parameter(contentType, 'boundary');
    return boundary === null || boundary.length > 70 || boundary === '' ? { kind: 'unreadable', why: 'it is multipart without a boundary that can be used' } : { kind: 'multipart', boundary };
  }
  const charset = (parameter(contentType, 'charset') ?? '').toLowerCase();
  const utf16 = beginning.length > 1 && ((beginning[0] === 0xff && beginning[1] === 0xfe) || (beginning[0] === 0xfe && beginning[1] === 0xff));
  if (!isTransformable(type, utf16 ? Buffer.alloc(0) : beginning)) return { kind: 'binary' };
  if (!readable.has(charset) || utf16) return { kind: 'unreadable', why: `its characters are in ${charset === '' ? 'UTF-16' : charset.slice(0, 40)}` };
  if (type === 'application/x-www-form-urlencoded') return { kind: 'text', syntax: 'form' };
  const json = /(?:^|[/+.-])(?:json|ndjson|jsonl|x-ndjson)$/.test(type) || (type === '' && /^\s*[[{]/.test(beginning.subarray(0, 64).toString('latin1')));
  return { kind: 'text', syntax: json ? 'json' : 'plain' };
}

function parameter(contentType: string, name: string): string | null {
  for (const match of contentType.slice(0, 1000).matchAll(/;\s{0,8}([\w-]{1,40})=(?:"([^"]{0,200})"|([^\s;"]{0,200}))/g)) {
    if (match[1]!.toLowerCase() === name) return match[2] ?? match[3] ?? '';
  }
  return null;
}
