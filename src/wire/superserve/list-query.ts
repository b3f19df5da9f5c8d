import type { SandboxQuery } from '../../core/store.ts';
import { badRequest } from './errors.ts';
import { assertMetadata } from './limits.ts';
import { filterOf, statesByWord, statuses, visible, type Status } from './status.ts';

/** A query string as fastify gives it: a name that comes twice has a list. */
export type RawQuery = Readonly<Record<string, string | readonly string[] | undefined>>;

const largestLimit = 200;

/** What a listing asks for; `limit` null means all. */
export interface Listing {
  readonly query: Omit<SandboxQuery, 'limit' | 'offset'>;
  readonly limit: number | null;
  readonly offset: number;
}

/**
 * What `GET /sandboxes` asks for (contract, section 4.3).
 *
 * @throws PaddockError `invalid_argument` for what cannot be used, naming it.
 */
export function parseListQuery(raw: RawQuery): Listing {
  const status = single(raw, 'status');
  const order = parseOrder(raw);
  const text = single(raw, 'q');
  return {
    query: {
      ...parseStatus(status),
      metadata: parseMetadata(raw),
      ...(text ? { nameContains: text } : {}),
      order,
    },
    ...parsePage(raw),
  };
}

/** `limit` (larger ones are clamped, as the contract wants) and `offset`. */
export function parsePage(raw: RawQuery): { readonly limit: number | null; readonly offset: number } {
  const limit = parseCount(raw, 'limit', 1);
  return { limit: limit === undefined ? null : Math.min(limit, largestLimit), offset: parseCount(raw, 'offset', 0) ?? 0 };
}

function parseStatus(text: string | undefined): Pick<SandboxQuery, 'states' | 'endReasons'> {
  if (!text) return visible;
  if (text === 'migrating') return { states: [], endReasons: [] }; // a word of the contract; nothing here ever is
  if (!statuses.includes(text as Status)) throw badRequest('status', `must be one of ${statuses.join(', ')} or migrating, but is "${text.slice(0, 40)}"`);
  return filterOf(text as Status);
}

function parseOrder(raw: RawQuery): NonNullable<SandboxQuery['order']> {
  const sort = choice(raw, 'sort', ['created_at', 'name', 'status'] as const, 'created_at');
  const order = choice(raw, 'order', ['desc', 'asc'] as const, 'desc');
  const by = sort === 'name' ? 'name' : sort === 'status' ? { states: statesByWord } : 'createdAt';
  return { by, descending: order === 'desc' };
}

function parseMetadata(raw: RawQuery): Record<string, string> {
  const filters: [string, string][] = [];
  for (const [name, value] of Object.entries(raw)) {
    if (!name.startsWith('metadata.') || value === undefined) continue;
    const key = name.slice('metadata.'.length);
    if (key === '') throw badRequest('metadata.', 'has an empty key: write metadata.<key>=<value>');
    if (typeof value !== 'string') throw badRequest(name.slice(0, 100), 'is there more than once');
    filters.push([key, value]);
  }
  const metadata = Object.fromEntries(filters);
  assertMetadata(metadata, 'metadata filter');
  return metadata;
}

/** @throws PaddockError for a value that is not in the list. */
export function choice<T extends string>(raw: RawQuery, name: string, allowed: readonly T[], fallback: T): T {
  const text = single(raw, name);
  if (!text) return fallback;
  if (!allowed.includes(text as T)) throw badRequest(name, `must be one of ${allowed.join(', ')}, but is "${text.slice(0, 40)}"`);
  return text as T;
}

function parseCount(raw: RawQuery, name: string, least: number): number | undefined {
  const text = single(raw, name);
  if (text === undefined || text === '') return undefined;
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= least)) throw badRequest(name, `must be a whole number from ${least}, but is "${text.slice(0, 40)}"`);
  return value;
}

/** @throws PaddockError for a name that comes twice. */
export function single(raw: RawQuery, name: string): string | undefined {
  const value = raw[name];
  if (value !== undefined && typeof value !== 'string') throw badRequest(name, 'is there more than once');
  return value;
}
