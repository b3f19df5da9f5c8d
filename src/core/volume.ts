import { PaddockError } from './errors.ts';
import type { TeamId, VolumeId } from './ids.ts';

/** Files that outlive sandboxes, under a name. */
export interface Volume {
  readonly id: VolumeId;
  readonly teamId: TeamId;
  readonly name: string;
  readonly bytes: number;
  /** Files and directories. */
  readonly entries: number;
  readonly metadata: Readonly<Record<string, string>>;
  readonly createdAt: number;
  readonly updatedAt: number;
}

/** A place inside a volume: the names from its root down. The root itself is empty. */
export type VolumePath = readonly string[];

export interface VolumeEntry {
  readonly name: string;
  readonly type: 'file' | 'dir';
  readonly size: number;
  /** Permission bits. */
  readonly mode: number;
  readonly modifiedAt: number;
  /** Another one after every change of the content. */
  readonly version: string;
}

export const deepestVolumePath = 64;
const longestName = 255;
const longestPath = 4095;

/** Reads `a/b` or `/a/b`. Throws `invalid_argument` for what leads out, and for what no file system can hold. */
export function parseVolumePath(field: string, text: string): VolumePath {
  const problem = volumePathProblem(text);
  if (problem !== null) throw new PaddockError('invalid_argument', `${field} ${problem}`, { field });
  return namesOf(text);
}

/** What is wrong with a path, as the rest of a sentence; null when it is fine. */
export function volumePathProblem(text: string): string | null {
  if (text.includes('\0')) return 'holds a NUL character';
  if (Buffer.byteLength(text) > longestPath) return `is longer than ${longestPath} bytes`;
  const names = namesOf(text);
  if (names.includes('..')) return 'has a ".." in it, and would lead out of the volume';
  if (names.length > deepestVolumePath) return `is ${names.length} levels deep; the limit is ${deepestVolumePath}`;
  if (names.some((name) => Buffer.byteLength(name) > longestName)) return `has a name longer than ${longestName} bytes`;
  return null;
}

function namesOf(text: string): readonly string[] {
  return text.split('/').filter((name) => name !== '' && name !== '.');
}
