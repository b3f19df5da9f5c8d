import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PaddockError, type ErrorCode } from '../../core/errors.ts';
import type { EndReason } from '../../core/sandbox.ts';
import { Connections } from './connections.ts';
import { newSandboxId } from '../../core/ids.ts';
import { answerTo, SuperserveError } from './errors.ts';
import { assertWritable, contentDisposition, readPath } from './file-paths.ts';
import { isUuid, readSandboxId, templateUuid } from './ids.ts';
import { parseListQuery } from './list-query.ts';
import { presentNetwork, readNetwork } from './network-rules.ts';
import { RateLimits } from './rate-limits.ts';
import { statusOf } from './status.ts';

const invalid = (message: RegExp) => ({ code: 'invalid_argument', message });

test('a path is absolute, has no step up, and is cleaned', () => {
  assert.equal(readPath('/a//b/./c/'), '/a/b/c');
  assert.equal(readPath('/'), '/');
  for (const path of [undefined, '', 'a', './a', '/a/../b', '/..', '/a\0']) assert.throws(() => readPath(path), { code: 'invalid_argument' }, String(path));
});

test('what belongs to the sandbox itself is not written', () => {
  for (const path of ['/', '/proc', '/proc/1/mem', '/sys/x', '/dev/null', '/sbin/init', '/.paddock/agent']) assert.throws(() => assertWritable(path), invalid(/cannot be written/), path);
  for (const path of ['/process', '/home/dev', '/sbin/init2']) assertWritable(path);
});

test('a file name goes into a header whatever it is made of', () => {
  assert.equal(contentDisposition('a.txt'), 'attachment; filename="a.txt"');
  assert.equal(contentDisposition('ä"\r\n.txt'), `attachment; filename="____.txt"; filename*=UTF-8''%C3%A4%22%0D%0A.txt`);
});

test('ids are UUIDs, with a region or without', () => {
  const id = newSandboxId();
  assert.equal(readSandboxId(id), id);
  assert.equal(readSandboxId(`sb-usw-${id}`), id);
  assert.equal(readSandboxId(id.toUpperCase()), id);
  for (const text of ['', 'x', `sb-${id}`, `sb-a-b-${id}`, `${id}0`]) assert.equal(readSandboxId(text), null, text);
  assert.ok(isUuid(templateUuid('superserve/base')));
  assert.notEqual(templateUuid('superserve/base'), templateUuid('base'));
});

test('every end of a sandbox has a status that the Python SDK knows', () => {
  const end = (reason: EndReason) => statusOf({ state: 'killed', end: { at: 0, reason, detail: '' } });
  assert.deepEqual((['killed', 'timeout', 'auto_deleted'] as const).map(end), ['deleted', 'deleted', 'deleted']);
  assert.deepEqual((['host_rebooted', 'out_of_memory', 'runtime_crashed', 'agent_lost', 'stopped'] as const).map(end), ['failed', 'failed', 'failed', 'failed', 'failed']);
  assert.deepEqual((['creating', 'running', 'pausing', 'paused', 'resuming', 'killing'] as const).map((state) => statusOf({ state, end: null })), ['starting', 'active', 'pausing', 'paused', 'resuming', 'deleted']);
});

test('rules: names in allow_out only, IPv4 in both, and nothing else', () => {
  const shown = presentNetwork(readNetwork({ allow_out: ['API.Example.com', '*.example.org', '198.51.100.7', '93.184.0.0/16'], deny_out: ['0.0.0.0/0'] }));
  assert.deepEqual(shown, { allow_out: ['198.51.100.7/32', '93.184.0.0/16', 'api.example.com', '*.example.org'], deny_out: ['0.0.0.0/0'] });
  assert.equal(presentNetwork(readNetwork({})), null);
  for (const network of [{ deny_out: ['example.com'] }, { allow_out: ['*'] }, { allow_out: ['~x'] }, { allow_out: ['::1'] }, { deny_out: ['2001:db8::/32'] }, { allow_out: ['10.0.0.0/33'] }, { deny_out: ['ALL_TRAFFIC'] }]) {
    assert.throws(() => readNetwork(network), invalid(/^network\.(allow|deny)_out\[0\]/), JSON.stringify(network));
  }
});

test('a listing is asked for in the words of the contract', () => {
  const { query, limit, offset } = parseListQuery({ status: 'failed', q: 'Mine', sort: 'name', order: 'asc', limit: '999', offset: '3', 'metadata.a': '1' });
  assert.deepEqual([query.states, query.nameContains, query.order, limit, offset, query.metadata], [['killed'], 'Mine', { by: 'name', descending: false }, 200, 3, { a: '1' }]);
  assert.equal(parseListQuery({}).limit, null);
  assert.deepEqual(parseListQuery({ status: 'migrating' }).query.states, []);
  for (const raw of [{ status: 'gone' }, { sort: 'size' }, { order: 'up' }, { limit: '0' }, { limit: '-1' }, { offset: 'x' }, { 'metadata.': '1' }, { 'metadata.a': ['1', '2'] }, { 'metadata.superserve.x': '1' }]) {
    assert.throws(() => parseListQuery(raw), { code: 'invalid_argument' }, JSON.stringify(raw));
  }
});

test('a bucket gives its burst at once, then its rate', () => {
  let now = 0;
  const limits = new RateLimits({ perSecond: 2, burst: 3 }, () => now);
  assert.deepEqual([1, 2, 3].map(() => limits.take('a').remaining), [2, 1, 0]);
  const refused = limits.take('a');
  assert.deepEqual([refused.allowed, refused.retryAfterSeconds, refused.limit, refused.resetSeconds], [false, 1, 3, 2]);
  assert.equal(limits.take('b').allowed, true);
  now += 500;
  assert.equal(limits.take('a').allowed, true);
  assert.equal(limits.take('a').allowed, false);
});

test('connections are counted for each sandbox and address, but not for loopback', () => {
  const connections = new Connections();
  const id = newSandboxId();
  const leave = Array.from({ length: 200 }, () => connections.enter(id, '127.0.0.1'));
  assert.throws(() => connections.enter(id, '127.0.0.1'), { code: 'rate_limited', message: /^200 connections of this sandbox/ });
  leave[0]!();
  leave[0]!(); // once is enough
  connections.enter(id, '::1');
  assert.throws(() => connections.enter(id, '::1'), { code: 'rate_limited' });
  for (let i = 0; i < 100; i++) connections.enter(newSandboxId(), '198.51.100.1');
  assert.throws(() => connections.enter(newSandboxId(), '198.51.100.1'), { message: /^100 connections from this address/ });
});

/** Every code of the core with what the contract's table gives it (section 2.1). */
const table: Readonly<Partial<Record<ErrorCode, readonly [number, string]>>> = {
  invalid_argument: [400, 'bad_request'],
  unauthenticated: [401, 'auth_failed'],
  not_found: [404, 'not_found'],
  conflict: [409, 'conflict'],
  template_not_ready: [409, 'conflict'],
  gone: [410, 'gone'],
  rate_limited: [429, 'rate_limited'],
  concurrency_limit: [429, 'too_many_sandboxes'],
  internal: [500, 'internal_error'],
  no_capacity: [503, 'service_unavailable'],
  no_space: [507, 'sandbox_storage_full'],
};
for (const [code, [status, word]] of Object.entries(table) as [ErrorCode, [number, string]][]) {
  test(`${code} is ${status} ${word}`, () => {
    const answer = answerTo(new PaddockError(code, 'what happened'), 'r-1');
    assert.deepEqual([answer.status, answer.body.error.code], [status, word]);
    assert.equal(answer.body.error.message, code === 'internal' ? 'The server failed to answer this request. Its log has the reason under the request id r-1.' : 'what happened');
    assert.equal(answer.headers['retry-after'], status === 429 ? '1' : undefined);
  });
}

test('a failure in this wire\'s own words goes out as it is', () => {
  assert.deepEqual(answerTo(new SuperserveError(500, 'sandbox_filesystem_error', 'm', { extra: { path: '/x' }, headers: { a: 'b' } }), ''), { status: 500, headers: { a: 'b' }, body: { error: { path: '/x', code: 'sandbox_filesystem_error', message: 'm' } } });
  assert.equal(answerTo(new TypeError('secret'), 'r-7').body.error.message.includes('secret'), false);
});
