import { randomBytes, randomUUID } from 'node:crypto';

declare const brand: unique symbol;
type Branded<T, B extends string> = T & { readonly [brand]: B };

/** The one internal identity of a sandbox: a lowercase UUID. Each wire shows a projection of it. */
export type SandboxId = Branded<string, 'SandboxId'>;
/** Eight characters of `a-z0-9`, unique over all sandboxes that still have a row. */
export type ShortId = Branded<string, 'ShortId'>;
export type TeamId = Branded<string, 'TeamId'>;
/** A lowercase UUID. */
export type SnapshotId = Branded<string, 'SnapshotId'>;
/** A lowercase UUID. */
export type VolumeId = Branded<string, 'VolumeId'>;
/** A lowercase UUID. */
export type SecretId = Branded<string, 'SecretId'>;
/** A lowercase UUID: the certificate authority that a sandbox and its forks trust. */
export type AuthorityId = Branded<string, 'AuthorityId'>;

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const shortPattern = /^[a-z0-9]{8}$/;

export function newSandboxId(): SandboxId {
  return randomUUID() as SandboxId;
}

export function parseSandboxId(text: string): SandboxId | null {
  const lower = text.toLowerCase();
  return uuidPattern.test(lower) ? (lower as SandboxId) : null;
}

export function newSnapshotId(): SnapshotId {
  return randomUUID() as SnapshotId;
}

export function parseSnapshotId(text: string): SnapshotId | null {
  const lower = text.toLowerCase();
  return uuidPattern.test(lower) ? (lower as SnapshotId) : null;
}

export function newVolumeId(): VolumeId {
  return randomUUID() as VolumeId;
}

export function parseVolumeId(text: string): VolumeId | null {
  const lower = text.toLowerCase();
  return uuidPattern.test(lower) ? (lower as VolumeId) : null;
}

export function newSecretId(): SecretId {
  return randomUUID() as SecretId;
}

export function parseSecretId(text: string): SecretId | null {
  const lower = text.toLowerCase();
  return uuidPattern.test(lower) ? (lower as SecretId) : null;
}

export function newAuthorityId(): AuthorityId {
  return randomUUID() as AuthorityId;
}

export function newShortId(): ShortId {
  // 36^8 ids; rejection sampling keeps the letters evenly spread.
  let id = '';
  while (id.length < 8) {
    for (const byte of randomBytes(12)) {
      if (byte < 252 && id.length < 8) id += 'abcdefghijklmnopqrstuvwxyz0123456789'[byte % 36];
    }
  }
  return id as ShortId;
}

export function parseShortId(text: string): ShortId | null {
  return shortPattern.test(text) ? (text as ShortId) : null;
}

/** How a caller names a sandbox, after its wire has taken its own decoration off. */
export type SandboxRef = { readonly id: SandboxId } | { readonly shortId: ShortId };
