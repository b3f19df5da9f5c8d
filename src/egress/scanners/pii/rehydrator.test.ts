import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type AnswerSyntax, Rehydrator } from './rehydrator.ts';
import { TokenJoiner } from './token-joiner.ts';
import { TokenTable } from './tokens.ts';

const table = new TokenTable();
table.tokenFor('email', 'joe@example.com', 'api.example.com');
table.tokenFor('api_key', 'line 1\n"line" \\2', 'api.example.com');
table.tokenFor('person_name', 'Jürgen & Söhne <x>', 'api.example.com');
table.tokenFor('email', 'other@example.com', 'other.example.com');

function turned(body: string, syntax: AnswerSyntax = 'plain', step = Infinity, host = 'api.example.com'): string {
  const rehydrator = new Rehydrator({ syntax, valueFor: (token) => table.valueFor(token, host) });
  const bytes = Buffer.from(body);
  const out: Buffer[] = [];
  for (let from = 0; from < bytes.length; from += step) out.push(rehydrator.write(bytes.subarray(from, from + step)));
  out.push(rehydrator.end());
  return Buffer.concat(out).toString();
}

test('tokens become values again, cut at every byte', () => {
  const body = 'é [REDACTED_EMAIL_1], [[REDACTED_EMAIL_1]] and [REDACTED_PERSON_NAME_1]';
  const expected = 'é joe@example.com, [joe@example.com] and Jürgen & Söhne <x>';
  for (let step = 1; step <= body.length; step++) assert.equal(turned(body, 'plain', step), expected, `pieces of ${step}`);
});

test('in JSON a value is escaped as its place asks for', () => {
  for (const step of [1, 3, Infinity]) {
    assert.deepEqual(JSON.parse(turned('{"k":"a [REDACTED_API_KEY_1] b","n":"\\u005bREDACTED_EMAIL_1\\u005d"}', 'json', step)), { k: 'a line 1\n"line" \\2 b', n: 'joe@example.com' });
    const nested = JSON.parse(turned(JSON.stringify({ arguments: JSON.stringify({ key: '[REDACTED_API_KEY_1]' }) }), 'json', step)) as { arguments: string };
    assert.deepEqual(JSON.parse(nested.arguments), { key: 'line 1\n"line" \\2' });
    const quoted = { text: 'he said "[REDACTED_API_KEY_1]" and "[REDACTED_EMAIL_1]"' };
    assert.deepEqual(JSON.parse(turned(JSON.stringify(quoted), 'json', step)), { text: 'he said "line 1\n"line" \\2" and "joe@example.com"' });
  }
});

test('in forms, links and HTML a value is escaped as the brackets are', () => {
  assert.equal(turned('https://h/?m=%5BREDACTED_EMAIL_1%5D'), 'https://h/?m=joe%40example.com');
  assert.equal(turned('m=[REDACTED_EMAIL_1]', 'form'), 'm=joe%40example.com');
  assert.equal(turned('&#91;REDACTED_PERSON_NAME_1&#93;'), 'Jürgen &amp; Söhne &lt;x&gt;');
});

test('in an event stream a value with line breaks stays in its event', () => {
  assert.equal(turned('data: [REDACTED_API_KEY_1]\n\n', 'sse'), 'data: line 1\ndata: "line" \\2\n\n');
  assert.deepEqual(JSON.parse(turned('data: {"t":"[REDACTED_API_KEY_1]"}\n\n', 'sse').slice(6)), { t: 'line 1\n"line" \\2' });
});

test('an event stream is not held up', () => {
  const rehydrator = new Rehydrator({ syntax: 'sse', valueFor: () => null });
  assert.equal(rehydrator.write(Buffer.from('data: hello\n\n')).toString(), 'data: hello\n\n');
  assert.equal(rehydrator.write(Buffer.from('data: a [REDA')).toString(), 'data: a ');
  assert.equal(rehydrator.write(Buffer.from('B] c\n\n')).toString(), '[REDAB] c\n\n');
});

for (const forged of ['[REDACTED_EMAIL_7]', '[REDACTED_EMAIL_01]', '[REDACTED_EMAIL_0]', '[REDACTED_EMAIL_1', '[REDACTED_SSN_1]', '[REDACTED_EMAIL_-1]', '[REDACTED_EMAIL_1_1]', '[redacted_email_1]', '[REDACTED___PROTO___1]', `[REDACTED_EMAIL_${'1'.repeat(100)}]`]) {
  test(`attack: a forged token stays what it is: ${forged.slice(0, 40)}`, () => {
    for (const syntax of ['plain', 'json', 'sse', 'form'] as const) assert.equal(turned(`"${forged}"`, syntax, 5), `"${forged}"`);
  });
}

test('attack: a host echoes a token whose value was sent to another host', () => {
  assert.equal(turned('[REDACTED_EMAIL_2] [REDACTED_EMAIL_1]'), '[REDACTED_EMAIL_2] joe@example.com');
  assert.equal(turned('[REDACTED_EMAIL_2] [REDACTED_EMAIL_1]', 'plain', Infinity, 'other.example.com'), 'other@example.com [REDACTED_EMAIL_1]');
  assert.equal(turned('[REDACTED_EMAIL_1]', 'plain', Infinity, 'third.example.com'), '[REDACTED_EMAIL_1]');
});

test('attack: a token of another sandbox stands for nothing', () => {
  const other = new TokenTable();
  const rehydrator = new Rehydrator({ syntax: 'plain', valueFor: (token) => other.valueFor(token, 'api.example.com') });
  assert.equal(Buffer.concat([rehydrator.write(Buffer.from('[REDACTED_EMAIL_1]')), rehydrator.end()]).toString(), '[REDACTED_EMAIL_1]');
});

test('attack: a value that looks like a token is not turned again', () => {
  const nested = new TokenTable();
  nested.tokenFor('email', '[REDACTED_SSN_1]', 'h');
  nested.tokenFor('ssn', '123-45-6789', 'h');
  const rehydrator = new Rehydrator({ syntax: 'plain', valueFor: (token) => nested.valueFor(token, 'h') });
  assert.equal(Buffer.concat([rehydrator.write(Buffer.from('[REDACTED_EMAIL_1]')), rehydrator.end()]).toString(), '[REDACTED_SSN_1]');
});

test('attack: a megabyte of beginnings of tokens is passed on in bounded memory', () => {
  for (const unit of ['[', '[REDACTED_', '[REDACTED_EMAIL_1', '%5', '\\u005', '&#9']) {
    const body = unit.repeat((1 << 20) / unit.length);
    const rehydrator = new Rehydrator({ syntax: 'json', valueFor: () => 'x' });
    let size = 0;
    for (let from = 0; from < body.length; from += 1000) {
      size += rehydrator.write(Buffer.from(body.slice(from, from + 1000))).length;
      assert.ok(Math.min(from + 1000, body.length) - size < 100);
    }
    assert.equal(size + rehydrator.end().length, body.length);
  }
});

/** What a client makes of a stream of deltas: the texts of its events, one after the other. */
function joined(events: readonly object[], step: number): { text: string; stream: string } {
  const joiner = new TokenJoiner();
  const rehydrator = new Rehydrator({ syntax: 'sse', valueFor: (token) => table.valueFor(token, 'api.example.com') });
  const bytes = Buffer.from(`${events.map((event) => `event: delta\ndata: ${JSON.stringify(event)}\n\n`).join('')}data: [DONE]\n\n`);
  const out: Buffer[] = [];
  for (let from = 0; from < bytes.length; from += step) out.push(rehydrator.write(joiner.write(bytes.subarray(from, from + step))));
  out.push(rehydrator.write(joiner.end()), rehydrator.end());
  const stream = Buffer.concat(out).toString();
  const text = stream.split('\n').filter((line) => line.startsWith('data: {')).map((line) => (JSON.parse(line.slice(6)) as { choices?: { delta: { content?: string } }[] }).choices?.[0]?.delta.content ?? '').join('');
  return { text, stream };
}

const delta = (content: string): object => ({ id: 'c', choices: [{ index: 0, delta: { content } }] });

test('a token that a model streams in several events becomes its value, wherever it is cut', () => {
  const token = '[REDACTED_EMAIL_1]';
  for (let a = 1; a < token.length; a++) {
    for (const b of [a, Math.min(a + 1, token.length - 1), token.length - 1]) {
      const events = [delta('Write to '), delta(token.slice(0, a)), { type: 'ping' }, delta(token.slice(a, b)), delta(`${token.slice(b)} or [not`), delta(' a token]')];
      for (const step of [7, 10_000]) assert.equal(joined(events, step).text, 'Write to joe@example.com or [not a token]');
    }
  }
});

test('events of a stream keep their number, order and fields when a token is put together', () => {
  const { stream } = joined([delta('a [REDACTED'), delta('_EMAIL_'), delta('1] b')], 3);
  assert.equal(stream.match(/^event: delta$/gm)?.length, 3);
  assert.match(stream, /data: \[DONE\]\n\n$/);
  assert.match(stream, /"content":"a joe@example\.com"\}.*\n\nevent: delta\ndata: .*"content":""\}.*\n\nevent: delta\ndata: .*"content":" b"\}/);
});

test('a stream of events without a token passes unchanged, byte for byte', () => {
  const stream = 'retry: 3\r\n: comment\r\ndata: {"a":"[", "n":1.0}\r\n\r\ndata: {"a":"x]"}\r\n\r\ndata: {broken\n\ndata: [1]\n\nid: 7';
  const joiner = new TokenJoiner();
  assert.equal(Buffer.concat([joiner.write(Buffer.from(stream)), joiner.end()]).toString(), stream);
});

test('attack: a long line of a stream, byte by byte, and long keys above many values', () => {
  const line = `data: {"a":"${'x'.repeat(300_000)}"}\n`;
  const joiner = new TokenJoiner();
  let out = '';
  for (const char of line) out += joiner.write(Buffer.from(char)).toString();
  assert.equal(out + joiner.end().toString(), line);
  const keys = `data: ${JSON.stringify({ first: '[RED', ['k'.repeat(100_000)]: Array.from({ length: 10_000 }, () => ({ v: 'x' })) })}\n`;
  const other = new TokenJoiner();
  assert.equal(Buffer.concat([other.write(Buffer.from(keys)), other.end()]).toString(), keys);
});

test('attack: a beginning of a token that never goes on does not hold a stream up', () => {
  const joiner = new TokenJoiner();
  let size = 0;
  let given = 0;
  for (let i = 0; i < 200; i++) {
    const event = Buffer.from(`data: {"a":"${i === 0 ? '[REDACTED_' : ''}","b":"x"}\n\n`);
    size += event.length;
    given += joiner.write(event).length;
    assert.ok(size - given < 2000);
  }
});
