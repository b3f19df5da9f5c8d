import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PaddockError } from '../../core/errors.ts';
import type { SandboxId } from '../../core/ids.ts';
import { Cursors } from './cursor.ts';
import { parseListQuery, type RawQuery } from './list-query.ts';

const cursors = new Cursors(Buffer.alloc(32, 1));
const position = { createdAt: 5, id: '00000000-0000-4000-8000-000000000000' as SandboxId };
const alive = ['creating', 'running', 'pausing', 'paused', 'resuming'];

test('without parameters: the living, a hundred', () => {
  assert.deepEqual(parseListQuery({}, cursors), { states: alive, metadata: {}, limit: 100, offset: 0 });
});

const understood: [RawQuery, object][] = [
  [{ limit: '3', offset: '7' }, { limit: 3, offset: 7 }],
  [{ limit: '' }, { limit: 100 }],
  [{ state: 'live' }, { states: ['running'] }],
  [{ state: ['running', 'killed'] }, { states: ['running', 'killing', 'killed'] }],
  [{ state: 'paused, RUNNING' }, { states: ['pausing', 'paused', 'resuming', 'running'] }],
  [{ state: 'all' }, { states: [...alive.slice(0, 2), 'pausing', 'paused', 'resuming', 'killing', 'killed'] }],
  [{ metadata: '{"a":"b"}', 'metadata.c.d': 'e' }, { metadata: { a: 'b', 'c.d': 'e' } }],
  [{ metadata: '[object Object]', unknown: 'x' }, { metadata: {} }],
  [{ metadata: '[1]' }, { metadata: {} }],
  [{ next_token: cursors.write(position), offset: '9' }, { after: position }],
];
for (const [query, expected] of understood) {
  test(`${JSON.stringify(query).slice(0, 70)} is understood`, () => {
    const parsed = parseListQuery(query, cursors) as unknown as Record<string, unknown>;
    for (const [key, value] of Object.entries(expected)) assert.deepEqual(parsed[key], value);
  });
}

const refused: [RawQuery, string, string][] = [
  [{ limit: '0' }, 'limit', 'limit must be a whole number from 1 to 1000, but is "0".'],
  [{ limit: '1001' }, 'limit', 'limit must be a whole number from 1 to 1000, but is "1001".'],
  [{ limit: '1e2' }, 'limit', 'limit must be a whole number from 1 to 1000, but is "1e2".'],
  [{ offset: '-1' }, 'offset', 'offset must be a whole number from 0 to 9007199254740991, but is "-1".'],
  [{ state: 'asleep' }, 'state', 'state must be one of running, live, paused, creating, killed, all, or several with commas, but is "asleep".'],
  [{ state: 'constructor' }, 'state', 'state must be one of running, live, paused, creating, killed, all, or several with commas, but is "constructor".'],
  [{ next_token: 'forged' }, 'next_token', 'next_token is not a cursor of this server: pass on the next_token of the page before, unchanged.'],
];
for (const [query, field, message] of refused) {
  test(`${JSON.stringify(query)} is refused by name`, () => {
    assert.throws(() => parseListQuery(query, cursors), (error: unknown) => error instanceof PaddockError && error.detail.field === field && error.message === message);
  });
}
