import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withoutSecrets } from './log.ts';

test('errors of others are logged without what they repeat of credentials', () => {
  for (const [text, shown] of [
    ['no such key dcl_ABCDEFGHijklmnop0123456789ABCDEFGHijklmnop here', 'no such key dcl_[hidden] here'],
    ['sent Authorization: Bearer abc.DEF-123_xyz== to x', 'sent Authorization: Bearer [hidden] to x'],
    ['Basic dXNlcjpwYXNz failed', 'Basic [hidden] failed'],
    ['connect http://user:p%40ss@proxy.example:3128 failed', 'connect http://[hidden]@proxy.example:3128 failed'],
    ['GET https://x.example/path?token=abc&b=1 failed', 'GET https://x.example/path?[hidden] failed'],
    ['at file:///opt/paddock/src/server.ts:12:3', 'at file:///opt/paddock/src/server.ts:12:3'],
    ['what? nothing: bearer of news', 'what? nothing: bearer of news'],
  ] as const) {
    assert.equal(withoutSecrets(text), shown);
  }
});
