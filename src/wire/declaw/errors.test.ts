import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PaddockError, type ErrorCode } from '../../core/errors.ts';
import { answerTo } from './errors.ts';

/** Every code of the core with the status the contract's table gives it (section 1.7). */
const table: Readonly<Record<ErrorCode, number>> = {
  invalid_argument: 400,
  unauthenticated: 401,
  insufficient_balance: 402,
  permission_denied: 403,
  not_found: 404,
  deadline_exceeded: 408,
  conflict: 409,
  template_not_ready: 409,
  idempotency_in_progress: 409,
  idempotency_key_reused: 422,
  gone: 410,
  too_large: 413,
  unprocessable: 422,
  rate_limited: 429,
  concurrency_limit: 429,
  internal: 500,
  guest_unreachable: 502,
  not_listening: 502,
  no_capacity: 503,
  no_space: 507,
};

for (const [code, status] of Object.entries(table) as [ErrorCode, number][]) {
  test(`${code} is ${status}, with message and code`, () => {
    const answer = answerTo(new PaddockError(code, 'what happened'), 'r-1');
    assert.equal(answer.status, status);
    assert.equal(answer.body.code, code);
    if (code !== 'internal') assert.equal(answer.body.message, 'what happened');
  });
}

test('the table has every status of the contract', () => {
  const wanted = [400, 401, 402, 403, 404, 408, 409, 410, 413, 422, 429, 502, 503, 507];
  assert.deepEqual(wanted.filter((status) => !Object.values(table).includes(status)), []);
});

test('an unforeseen error is a 500 that tells where to look and nothing else', () => {
  const answer = answerTo(new TypeError('cannot read properties of secret'), 'r-7');
  assert.deepEqual(answer, {
    status: 500,
    headers: {},
    body: { message: 'The server failed to answer this request. Its log has the reason under the request id r-7.', code: 'internal' },
  });
});

test('errors of the HTTP framework keep their status', () => {
  assert.equal(answerTo(Object.assign(new Error('no'), { statusCode: 413 }), '').status, 413);
  assert.equal(answerTo(Object.assign(new Error('no'), { statusCode: 415 }), '').status, 400);
  assert.equal(answerTo(Object.assign(new Error('no'), { statusCode: 503 }), '').status, 500);
});

test('what can be tried again says when', () => {
  assert.deepEqual(answerTo(new PaddockError('idempotency_in_progress', 'x'), '').headers, { 'retry-after': '1' });
  assert.deepEqual(answerTo(new PaddockError('no_capacity', 'x', { retryAfterSeconds: 4.2 }), '').headers, { 'retry-after': '5' });
  assert.deepEqual(answerTo(new PaddockError('unauthenticated', 'x'), '').headers, { 'www-authenticate': 'Bearer' });
});

test('a timed-out command says what it had written, of long output the end', () => {
  const { body } = answerTo(new PaddockError('deadline_exceeded', 'timed out', { partial: { stdout: 'o', stderr: `${'x'.repeat(20_000)}end` } }), '');
  assert.ok(body.message.startsWith('timed out\n--- stdout so far ---\no\n--- stderr so far ---\n…xxx'));
  assert.ok(body.message.endsWith('xend'));
  assert.ok(body.message.length < 17_000);
  assert.equal(answerTo(new PaddockError('deadline_exceeded', 'timed out', { partial: { stdout: '', stderr: '' } }), '').body.message, 'timed out');
});
