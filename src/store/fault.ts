import { PaddockError } from '../core/errors.ts';

/** Runs a piece of database work; what the database throws leaves as a PaddockError that says what was tried. */
export async function stored<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof PaddockError) throw error;
    const code = (error as { code?: unknown } | null)?.code;
    if (code === 'SQLITE_FULL' || code === 'SQLITE_IOERR_WRITE') {
      throw new PaddockError('no_capacity', `cannot ${what}: the disk of the server is full; free some space in its data directory`, {}, { cause: error });
    }
    if (code === 'SQLITE_CONSTRAINT_UNIQUE' || code === 'SQLITE_CONSTRAINT_PRIMARYKEY') {
      throw new PaddockError('conflict', `cannot ${what}: it exists already`, {}, { cause: error });
    }
    throw new PaddockError('internal', `cannot ${what}: ${error instanceof Error ? error.message : String(error)}`, {}, { cause: error });
  }
}

/** A value that is JSON in the database, frozen all the way down. */
export function frozenJson<T>(text: string): T {
  return JSON.parse(text, (_key, value: unknown) => (typeof value === 'object' && value !== null ? Object.freeze(value) : value)) as T;
}
