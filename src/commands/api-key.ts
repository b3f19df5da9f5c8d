import { readFileSync } from 'node:fs';
import { newRawKey, type Access } from '../core/access.ts';
import { PaddockError } from '../core/errors.ts';
import type { Config } from '../config.ts';
import { dataFiles, OperatorError, writeWhole } from './data-dir.ts';

/** The key that this start shows: its text, and whether it is the operator's own, which is not repeated on the screen. */
export interface StartKey {
  readonly raw: string;
  readonly fromEnvironment: boolean;
}

/**
 * Makes sure there is a key to begin with: the one from `PADDOCK_API_KEY`, else the one in the data directory, which is generated once. A
 * generated one that was revoked is replaced.
 */
export async function ensureStartKey(access: Access, config: Config): Promise<StartKey> {
  if (config.apiKey !== null) {
    try {
      await access.ensureKey(config.apiKey, 'PADDOCK_API_KEY');
    } catch (error) {
      throw new OperatorError(`PADDOCK_API_KEY cannot be used: ${PaddockError.from(error).message}.`, { cause: error });
    }
    return { raw: config.apiKey, fromEnvironment: true };
  }
  const file = dataFiles(config.dataDir).apiKey;
  const kept = readKept(file);
  if (kept !== null) {
    try {
      await access.ensureKey(kept, 'generated');
      return { raw: kept, fromEnvironment: false };
    } catch (error) {
      if (PaddockError.from(error).code !== 'conflict') throw error;
    }
  }
  const raw = newRawKey();
  // The file first: a key that is valid but unknown to everybody would be of no use.
  writeWhole(file, `${raw}\n`, 0o600);
  await access.ensureKey(raw, 'generated');
  return { raw, fromEnvironment: false };
}

function readKept(file: string): string | null {
  try {
    return readFileSync(file, 'utf8').trim() || null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
