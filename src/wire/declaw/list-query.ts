import { PaddockError } from '../../core/errors.ts';
import type { SandboxState } from '../../core/sandbox.ts';
import type { SandboxQuery } from '../../core/store.ts';
import type { Cursors } from './cursor.ts';
import { statesOf, type StateWord } from './present.ts';

/** A query string as fastify gives it: a name that comes twice has a list. */
export type RawQuery = Readonly<Record<string, string | readonly string[] | undefined>>;

const defaultLimit = 100;
const largestLimit = 1000;

/** Filter words; `live` is the Go client's name for running. */
const stateFilters: Readonly<Record<string, readonly StateWord[]>> = Object.freeze({
  running: ['running'],
  live: ['running'],
  paused: ['paused'],
  creating: ['creating'],
  killed: ['killed'],
  all: ['creating', 'running', 'paused', 'killed'],
});

/**
 * What `GET /sandboxes` asks for (contract, section 2.1). Keys that nobody knows are ignored, and so is a metadata filter that
 * cannot be read: the TypeScript client turns nested objects into the text `[object Object]`.
 *
 * @throws PaddockError `invalid_argument` for a limit, offset, state or cursor that cannot be used.
 */
export function parseListQuery(query: RawQuery, cursors: Cursors): SandboxQuery {
  const token = last(query['next_token']);
  const offset = last(query['offset']);
  return {
    states: parseStates(query['state']),
    metadata: parseMetadata(query),
    limit: parseCount('limit', last(query['limit']), 1, largestLimit) ?? defaultLimit,
    ...(token ? { after: cursors.read(token) } : { offset: parseCount('offset', offset, 0, Number.MAX_SAFE_INTEGER) ?? 0 }),
  };
}

function parseStates(raw: string | readonly string[] | undefined): readonly SandboxState[] {
  const words = [raw ?? []].flat().flatMap((each) => each.split(',')).map((each) => each.trim().toLowerCase()).filter((each) => each !== '');
  if (words.length === 0) words.push('creating', 'running', 'paused');
  const states = new Set<SandboxState>();
  for (const word of words) {
    const chosen = Object.hasOwn(stateFilters, word) ? stateFilters[word]! : null;
    if (chosen === null) throw new PaddockError('invalid_argument', `state must be one of ${Object.keys(stateFilters).join(', ')}, or several with commas, but is "${word}".`, { field: 'state' });
    for (const each of chosen) for (const state of statesOf(each)) states.add(state);
  }
  return [...states];
}

function parseMetadata(query: RawQuery): Record<string, string> {
  const filters: [string, string][] = [];
  const text = last(query['metadata']);
  if (text) {
    try {
      const parsed: unknown = JSON.parse(text);
      if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) {
        for (const [key, value] of Object.entries(parsed)) if (typeof value === 'string') filters.push([key, value]);
      }
    } catch {
      // Not JSON: ignored, see above.
    }
  }
  for (const [name, value] of Object.entries(query)) {
    const text = last(value);
    if (name.startsWith('metadata.') && text !== undefined) filters.push([name.slice('metadata.'.length), text]);
  }
  return Object.fromEntries(filters);
}

export function parseCount(name: string, text: string | undefined, least: number, most: number): number | undefined {
  if (text === undefined || text === '') return undefined;
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most)) throw new PaddockError('invalid_argument', `${name} must be a whole number from ${least} to ${most}, but is "${text.slice(0, 40)}".`, { field: name });
  return value;
}

function last(value: string | readonly string[] | undefined): string | undefined {
  return typeof value === 'string' || value === undefined ? value : value.at(-1);
}
