import { PaddockError } from '../../core/errors.ts';
import { parseSandboxId, parseShortId, parseSnapshotId, parseVolumeId, type SandboxRef, type SnapshotId, type VolumeId } from '../../core/ids.ts';
import type { Sandbox } from '../../core/sandbox.ts';

const prefix = 'sbx-';

/** How this wire names a sandbox: `sbx-` and its short id. Must match the SDKs' `^[a-zA-Z0-9_-]+$`. */
export function publicId(sandbox: Pick<Sandbox, 'shortId'>): string {
  return prefix + sandbox.shortId;
}

/**
 * The sandbox a path names: `sbx-…`, or the UUID that other wires show.
 *
 * @throws PaddockError `not_found` for anything else; a malformed id names no sandbox.
 */
export function parsePublicId(text: string): SandboxRef {
  const shortId = text.startsWith(prefix) ? parseShortId(text.slice(prefix.length)) : null;
  if (shortId !== null) return { shortId };
  const id = parseSandboxId(text);
  if (id !== null) return { id };
  throw sandboxNotFound(text);
}

const snapshotPrefix = 'snap-';

/** How this wire names a snapshot: `snap-` and its UUID. */
export function snapshotName(id: SnapshotId): string {
  return snapshotPrefix + id;
}

/** @throws PaddockError `not_found` for what names no snapshot. */
export function parseSnapshotName(text: string): SnapshotId {
  const id = parseSnapshotId(text.startsWith(snapshotPrefix) ? text.slice(snapshotPrefix.length) : text);
  if (id === null) throw new PaddockError('not_found', `Snapshot ${text.slice(0, 128)} not found`);
  return id;
}

const volumePrefix = 'vol-';

/** How this wire names a volume: `vol-` and its UUID. */
export function volumeName(id: VolumeId): string {
  return volumePrefix + id;
}

/** @throws PaddockError `not_found` for what names no volume. */
export function parseVolumeName(text: string): VolumeId {
  const id = parseVolumeId(text.startsWith(volumePrefix) ? text.slice(volumePrefix.length) : text);
  if (id === null) throw new PaddockError('not_found', `Volume ${text.slice(0, 128)} not found`);
  return id;
}

export function sandboxNotFound(text: string): PaddockError {
  return new PaddockError('not_found', `Sandbox ${text} not found`);
}
