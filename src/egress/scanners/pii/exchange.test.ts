import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import type { PartFilter } from '../multipart.ts';
import { PiiExchange, type PiiPolicy, PiiRefused } from './exchange.ts';
import { corpus } from '../../testing/guardrails/corpus.ts';
import { TokenTable } from './tokens.ts';
import { piiTypes } from './types.ts';

const policy: PiiPolicy = { types: new Set(piiTypes), phone: { region: 'US' }, action: 'redact', rehydrate: true };

function through(filter: PartFilter | null, body: string, step = 11): string {
  if (filter === null) return body;
  const bytes = Buffer.from(body);
  const out: Buffer[] = [];
  for (let from = 0; from < bytes.length; from += step) out.push(filter.write(bytes.subarray(from, from + step)));
  return Buffer.concat([...out, filter.end()]).toString();
}

test('a host sees tokens, the sandbox reads originals', () => {
  const exchange = new PiiExchange(policy, new TokenTable(), 'api.example.com');
  const sent = { message: 'SSN 123-45-6789, joe@example.com, 4111 1111 1111 1111, (555) 123-4567' };
  const seen = through(exchange.requestBody('application/json'), JSON.stringify(sent));
  assert.deepEqual(JSON.parse(seen), { message: 'SSN [REDACTED_SSN_1], [REDACTED_EMAIL_1], [REDACTED_CREDIT_CARD_1], [REDACTED_PHONE_1]' });
  assert.deepEqual(JSON.parse(through(exchange.responseBody('application/json; charset=utf-8'), seen)), sent);
  assert.deepEqual(exchange.findings, [{ type: 'ssn', count: 1 }, { type: 'email', count: 1 }, { type: 'credit_card', count: 1 }, { type: 'phone', count: 1 }]);
  // Compression is undone before a stage sees an answer.
  assert.deepEqual(JSON.parse(through(exchange.responseBody('application/json'), gunzipSync(gzipSync(seen)).toString())), sent);
});

test('whatever was sent in strings of JSON comes back as it was, when a host sends it back', () => {
  const sent = corpus('tuning', 100).map(({ text }, i) => (i % 3 === 0 ? text : { [text.slice(0, 12)]: [text, { nested: JSON.stringify({ text }) }], n: i }));
  for (const json of [JSON.stringify(sent), JSON.stringify(sent, null, 2).replaceAll(/[\u0080-\uffff]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)]) {
    const exchange = new PiiExchange(policy, new TokenTable(), 'h');
    const seen = through(exchange.requestBody('application/json'), json, 1000);
    assert.notEqual(seen, json);
    JSON.parse(seen);
    assert.deepEqual(JSON.parse(through(exchange.responseBody('application/json'), seen, 100)), sent);
  }
});

test('without rehydration tokens stay in the answer', () => {
  const exchange = new PiiExchange({ ...policy, rehydrate: false }, new TokenTable(), 'h');
  assert.equal(through(exchange.requestBody('text/plain'), 'joe@example.com'), '[REDACTED_EMAIL_1]');
  assert.equal(exchange.responseBody('text/plain'), null);
});

test('path and query are looked into, and stay a URL', () => {
  const exchange = new PiiExchange(policy, new TokenTable(), 'h');
  assert.equal(exchange.target('/users/joe+x@example.com/a+b?ssn=123-45-6789&q=4111+1111+1111+1111&m=joe%40example.com'), '/users/%5BREDACTED_EMAIL_1%5D/a+b?ssn=%5BREDACTED_SSN_1%5D&q=%5BREDACTED_CREDIT_CARD_1%5D&m=%5BREDACTED_EMAIL_2%5D');
  assert.equal(exchange.target('/plain?x=1&y=%20'), '/plain?x=1&y=%20');
});

test('what is to be blocked is refused before any of it is given on, and named by kind, not by value', () => {
  const exchange = new PiiExchange({ ...policy, action: 'block' }, new TokenTable(), 'h');
  const filter = exchange.requestBody('text/plain');
  const before = filter.write(Buffer.from(`${'x '.repeat(40_000)}joe@example.com`));
  assert.ok(!before.includes('joe'));
  assert.throws(() => filter.end(), (reason) => reason instanceof PiiRefused && reason.code === 'pii_found' && /email/.test(reason.message) && !/joe/.test(reason.message));
  assert.throws(() => new PiiExchange({ ...policy, action: 'block' }, new TokenTable(), 'h').target('/?m=joe@example.com'), PiiRefused);
});

test('what is only to be logged passes as it is, and is counted', () => {
  const exchange = new PiiExchange({ ...policy, action: 'log_only' }, new TokenTable(), 'h');
  assert.equal(through(exchange.requestBody(''), 'joe@example.com'), 'joe@example.com');
  assert.deepEqual(exchange.findings, [{ type: 'email', count: 1 }]);
  assert.equal(exchange.responseBody('text/plain'), null);
});

test('parts of a multipart body are looked into by their own types', () => {
  const exchange = new PiiExchange(policy, new TokenTable(), 'h');
  const body = '--b\r\nContent-Disposition: form-data; name="m"\r\n\r\njoe@example.com\r\n--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\nContent-Type: image/png\r\n\r\n\x01PNG joe@example.com\r\n--b--\r\n';
  assert.equal(through(exchange.requestBody('multipart/form-data; boundary=b'), body), body.replace('joe@example.com', '[REDACTED_EMAIL_1]'));
});

test('attack: text in an encoding that cannot be read is refused, or passes with a note when nothing is to be held back', () => {
  const utf16 = Buffer.from('\ufeffjoe@example.com', 'utf16le');
  assert.throws(() => new PiiExchange(policy, new TokenTable(), 'h').requestBody('text/plain').write(utf16), (reason) => reason instanceof PiiRefused && reason.code === 'pii_unreadable');
  assert.throws(() => new PiiExchange(policy, new TokenTable(), 'h').requestBody('text/plain; charset=utf-7').write(Buffer.from('joe')), PiiRefused);
  const logged = new PiiExchange({ ...policy, action: 'log_only' }, new TokenTable(), 'h');
  assert.deepEqual(logged.requestBody('text/plain').write(utf16), utf16);
  assert.equal(logged.notScanned.length, 1);
});

test('attack: a host gets the values of another host back only as tokens', () => {
  const table = new TokenTable();
  const seen = through(new PiiExchange(policy, table, 'good.example.com').requestBody('text/plain'), 'joe@example.com');
  const evil = new PiiExchange(policy, table, 'evil.example.com');
  // The program itself passes the token on, and the other host sends it back to have it turned.
  assert.equal(through(evil.requestBody('text/plain'), seen), seen);
  assert.equal(through(evil.responseBody('text/plain'), seen), seen);
});

test('attack: a body whose type lies is looked into when it is text', () => {
  for (const type of ['', 'application/octet-stream', 'text/whatever', 'application/xml', 'application/json', 'application/x-www-form-urlencoded', 'image/png', 'application/grpc']) {
    const exchange = new PiiExchange(policy, new TokenTable(), 'h');
    assert.ok(!through(exchange.requestBody(type), 'ssn: 123-45-6789').includes('6789'), type);
  }
});

test('an event stream answers at once, event by event', () => {
  const table = new TokenTable();
  const exchange = new PiiExchange(policy, table, 'h');
  through(exchange.requestBody('text/plain'), 'joe@example.com');
  const filter = exchange.responseBody('text/event-stream')!;
  assert.equal(filter.write(Buffer.from('data: {"t":"hi [REDACTED_EMAIL_1]"}\n\n')).toString(), 'data: {"t":"hi joe@example.com"}\n\n');
});
