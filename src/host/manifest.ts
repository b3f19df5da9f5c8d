import type { CheckpointRef } from '../core/host.ts';
import { isSavedVolume, type SavedVolume } from './volumes/open-files.ts';

export const manifestName = 'manifest.json';

/** What a checkpoint consists of and what it takes to use it. Written last, so a directory with one is complete. */
export interface Manifest {
  readonly version: 1;
  readonly ref: CheckpointRef;
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
  readonly files: readonly SavedFile[];
  /** What is kept beside it of the volumes that were mounted; absent without any. */
  readonly volumes?: readonly SavedVolume[];
}

export interface SavedFile {
  readonly name: string;
  readonly size: number;
  /** Null until it has been computed, which happens in the background: damage cannot be noticed before. */
  readonly sha256: string | null;
}

export function formatManifest(manifest: Manifest): string {
  return `${JSON.stringify(manifest, null, 2)}\n`;
}

/** Null when it is not a manifest that this version wrote. */
export function parseManifest(text: string): Manifest | null {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return null;
  }
  const { version, ref, createdAt, files, volumes = [] } = (json ?? {}) as Partial<Manifest>;
  const sound = version === 1 && typeof createdAt === 'number' && isRef(ref) && Array.isArray(files) && files.length > 0 && files.every(isFile) && Array.isArray(volumes) && volumes.every(isSavedVolume);
  return sound ? (json as Manifest) : null;
}

function isRef(ref: Partial<CheckpointRef> | undefined): ref is CheckpointRef {
  const texts = [ref?.id, ref?.runtime, ref?.build, ref?.agent, ref?.template];
  const numbers = [ref?.agentProtocol, ref?.bytes, ref?.memoryBytes, ref?.pausedForMs];
  return texts.every((text) => typeof text === 'string') && numbers.every((number) => typeof number === 'number' && number >= 0);
}

function isFile(file: Partial<SavedFile> | null): boolean {
  // A plain name: nothing outside the directory is ever opened.
  return typeof file?.name === 'string' && /^[\w.-]+$/.test(file.name) && typeof file.size === 'number' && (file.sha256 === null || /^[0-9a-f]{64}$/.test(String(file.sha256)));
}
