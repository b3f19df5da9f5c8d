import { createHash } from 'node:crypto';
import { parseSandboxId, type SandboxId } from '../../core/ids.ts';
import { badRequest } from './errors.ts';

const tagged = /^(?:sb-[a-z0-9]+-)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;

/**
 * The sandbox that a path or host name means: a UUID, with or without a region in front (`sb-usw-…`). Null for anything else.
 */
export function readSandboxId(text: string): SandboxId | null {
  const uuid = tagged.exec(text.toLowerCase())?.[1];
  return uuid === undefined ? null : parseSandboxId(uuid);
}

/** @throws PaddockError `invalid_argument` for a text that is no id of this wire. */
export function parseId(text: string): { readonly id: SandboxId } {
  const id = readSandboxId(text);
  if (id === null) throw badRequest('sandbox id', `must be a UUID, which may have a region in front, but is "${text.slice(0, 80)}"`);
  return { id };
}

export function isUuid(text: string): boolean {
  return parseSandboxId(text) !== null && text === text.toLowerCase();
}

/** Templates have names; this wire wants a UUID as well. Always the same one for a name. */
export function templateUuid(name: string): string {
  const bytes = createHash('sha256').update(`paddock template ${name}`).digest().subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x80; // version 8: made by a rule of our own (RFC 9562)
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
