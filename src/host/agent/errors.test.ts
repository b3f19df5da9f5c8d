import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PaddockError } from '../../core/errors.ts';
import { fromAgentAnswer, fromConversation } from './errors.ts';

test('the agent\'s words become the core\'s', () => {
  const table: [word: string, status: number, code: string][] = [
    ['not_found', 404, 'not_found'],
    ['no_space', 507, 'no_space'],
    ['cwd_not_found', 400, 'invalid_argument'],
    ['spawn_failed', 422, 'unprocessable'],
    ['connection_refused', 502, 'not_listening'],
    ['stdin_closed', 409, 'conflict'],
  ];
  for (const [word, status, code] of table) {
    const error = fromAgentAnswer(status, JSON.stringify({ code: word, message: 'a sentence' }));
    assert.equal(error.code, code);
    assert.equal(error.message, 'a sentence');
  }
});

test('a range outside a file says how large that is, a failure of the guest\'s own system that it is one', () => {
  const outside = fromAgentAnswer(416, '{"code":"bad_range","message":"the file has 10 bytes"}', 'bytes */10');
  assert.deepEqual([outside.code, outside.detail], ['invalid_argument', { reason: 'range_not_satisfiable', fileBytes: 10 }]);
  assert.deepEqual(fromAgentAnswer(416, '{"code":"bad_range","message":"m"}', 'bytes */x').detail, { reason: 'range_not_satisfiable' });
  const failed = fromAgentAnswer(500, '{"code":"internal","message":"read /x: input/output error"}');
  assert.deepEqual([failed.code, failed.detail], ['unprocessable', { reason: 'guest_failed' }]);
});

test('an answer that makes no sense is never a server error', () => {
  for (const body of ['', 'not json', '[]', '{"code":5}', '{"code":"surprise"}']) {
    assert.equal(fromAgentAnswer(500, body).code, 'unprocessable');
  }
});

test('a message from inside the sandbox cannot forge log lines or flood them', () => {
  const error = fromAgentAnswer(404, JSON.stringify({ code: 'not_found', message: `x\r\nlevel=error ${'y'.repeat(5000)}` }));
  assert.ok(!/[\r\n]/.test(error.message));
  assert.ok(error.message.length <= 500);
});

test('only a request that cannot have had an effect may look repeatable', () => {
  assert.equal(fromConversation(new Error('reset'), true).code, 'unprocessable');
  assert.equal(fromConversation(new Error('refused'), false).code, 'guest_unreachable');
  const known = new PaddockError('gone', 'ended');
  assert.equal(fromConversation(known, true), known);
});
