import { PaddockError } from '../../core/errors.ts';

/** Deeper than any document of this wire, shallow enough for recursive code. */
const deepest = 64;

/**
 * A copy of a JSON value without the object members that are null: clients in Go and Python write absent values as null, and here both
 * mean absent.
 *
 * @throws PaddockError `invalid_argument` for a value nested deeper than 64 levels.
 */
export function withoutNulls(value: unknown, depth = 0): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (depth === deepest) throw new PaddockError('invalid_argument', `The body is nested deeper than ${deepest} levels.`);
  if (Array.isArray(value)) return value.map((each) => withoutNulls(each, depth + 1));
  const entries: [string, unknown][] = [];
  for (const [key, each] of Object.entries(value)) if (each !== null) entries.push([key, withoutNulls(each, depth + 1)]);
  return Object.fromEntries(entries);
}

/**
 * A create without its nulls. Maps of names to strings keep theirs: there a null is a wrong value, which the schema then names.
 */
export function createWithoutNulls(received: unknown): unknown {
  if (typeof received !== 'object' || received === null || Array.isArray(received)) return received;
  const body = withoutNulls(received) as Record<string, unknown>;
  for (const name of ['metadata', 'envs', 'vault_refs'] as const) {
    const map = (received as Record<string, unknown>)[name];
    if (map !== undefined && map !== null) body[name] = map;
  }
  return body;
}
