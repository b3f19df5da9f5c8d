import { badRequest } from './errors.ts';

/** Absolute, without a step up, without a NUL (contract, section 5.4). Empty segments and `.` are taken out. */
export function readPath(path: string | undefined): string {
  if (path === undefined || path === '') throw badRequest('path', 'is required: the absolute path of a file');
  if (path.includes('\0')) throw badRequest('path', 'must not contain a NUL byte');
  if (!path.startsWith('/')) throw badRequest('path', `must begin with /, but is "${path.slice(0, 80)}"`);
  const segments = path.split('/').filter((each) => each !== '' && each !== '.');
  if (segments.includes('..')) throw badRequest('path', 'must not contain .. as a segment');
  return `/${segments.join('/')}`;
}

/** Trees that are the kernel's. */
const kernelTrees = ['/proc', '/sys', '/dev'] as const;
/** Replacing these would cut the sandbox off. */
const ownFiles: ReadonlySet<string> = new Set(['/', '/sbin/init', '/.paddock', '/.paddock/agent']);

/** @throws PaddockError `invalid_argument` for a target that must not be written. */
export function assertWritable(path: string): void {
  if (ownFiles.has(path) || kernelTrees.some((tree) => path === tree || path.startsWith(`${tree}/`))) throw badRequest('path', `${path} cannot be written: it belongs to the sandbox itself`);
}

export function isKernelTree(path: string): boolean {
  return (kernelTrees as readonly string[]).includes(path) || path === '/.paddock';
}

export function baseName(path: string): string {
  return path.split('/').at(-1) || 'root';
}

/** For any name: quoted for old readers, and in UTF-8 for the others (RFC 6266). */
export function contentDisposition(name: string): string {
  const plain = name.replaceAll(/[^\x20-\x7e]|["\\]/g, '_');
  const encoded = encodeURIComponent(name).replaceAll(/['()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);
  return `attachment; filename="${plain}"${plain === name ? '' : `; filename*=UTF-8''${encoded}`}`;
}
