import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Syntax } from '../view.ts';
import { StreamRedactor } from './stream-redactor.ts';
import { TokenTable } from './tokens.ts';
import { piiTypes } from './types.ts';

const options = { types: new Set(piiTypes), phone: { region: 'US' } } as const;

function redacted(body: string | Buffer, syntax: Syntax = 'plain', cut: readonly number[] = []): { text: string; findings: Record<string, number> } {
  const table = new TokenTable();
  const redactor = new StreamRedactor({ ...options, syntax, replace: (type, value) => table.tokenFor(type, value, 'host') });
  const bytes = Buffer.from(body);
  const out: Buffer[] = [];
  let from = 0;
  for (const border of [...cut, bytes.length]) {
    out.push(redactor.write(bytes.subarray(from, border)));
    from = border;
  }
  out.push(redactor.end());
  return { text: Buffer.concat(out).toString(), findings: Object.fromEntries(redactor.findings.map(({ type, count }) => [type, count])) };
}

test('a value in a string of JSON becomes a token, and the rest stays as it was, byte for byte', () => {
  const { text, findings } = redacted('{ "a" : "joe@example.com",\n"b":[1.50, "x\\ty"] }', 'json');
  assert.equal(text, '{ "a" : "[REDACTED_EMAIL_1]",\n"b":[1.50, "x\\ty"] }');
  assert.deepEqual(findings, { email: 1 });
});

test('the same value has the same token, another one another', () => {
  assert.equal(redacted('a@example.com b@example.com a@example.com').text, '[REDACTED_EMAIL_1] [REDACTED_EMAIL_2] [REDACTED_EMAIL_1]');
});

test('a number of JSON becomes a string', () => {
  const { text } = redacted('{"card":4111111111111111,"n":[4012888888881881]}', 'json');
  assert.deepEqual(JSON.parse(text), { card: '[REDACTED_CREDIT_CARD_1]', n: ['[REDACTED_CREDIT_CARD_2]'] });
});

test('attack: a value over the border of two strings is not taken for one', () => {
  const body = '["123","45","6789",123,45,6789,"1","23-45-6789"]';
  assert.equal(redacted(body, 'json').text, body);
});

for (const [name, syntax, hidden, expected] of [
  ['escapes of JSON', 'json', '{"m":"joe\\u0040example\\u002ecom"}', '{"m":"[REDACTED_EMAIL_1]"}'],
  ['JSON in a string of JSON', 'json', '{"m":"{\\"m\\":\\"joe\\\\u0040example.com\\"}"}', '{"m":"{\\"m\\":\\"[REDACTED_EMAIL_1]\\"}"}'],
  ['a form', 'form', 'm=joe%40example.com&s=123-45-6789', 'm=%5BREDACTED_EMAIL_1%5D&s=%5BREDACTED_SSN_1%5D'],
  ['a form with pluses', 'form', 'c=4111+1111+1111+1111&x=1', 'c=%5BREDACTED_CREDIT_CARD_1%5D&x=1'],
  ['a link in JSON', 'json', '{"u":"https://h/?m=joe%40example.com"}', '{"u":"https://h/?m=%5BREDACTED_EMAIL_1%5D"}'],
  ['entities of HTML', 'plain', '<p>joe&#64;example&#x2e;com &commat;</p>', '<p>[REDACTED_EMAIL_1] &commat;</p>'],
  ['full-width digits', 'plain', 'ssn １２３－４５－６７８９.', 'ssn [REDACTED_SSN_1].'],
  ['Arabic digits', 'plain', 'ssn ١٢٣-٤٥-٦٧٨٩.', 'ssn [REDACTED_SSN_1].'],
  ['zero-width characters', 'plain', 'ssn 12\u200b3-4\u200d5-67\u206089.', 'ssn [REDACTED_SSN_1].'],
  ['zero-width characters in escapes', 'json', '"12\\u200b3-45-6789"', '"[REDACTED_SSN_1]"'],
  ['mathematical letters', 'plain', '𝐣𝐨𝐞@example.com', '[REDACTED_EMAIL_1]'],
  ['other dashes and spaces', 'plain', '123‑45‑6789 and 4111\u00a01111\u00a01111\u00a01111', '[REDACTED_SSN_1] and [REDACTED_CREDIT_CARD_1]'],
] as const) {
  test(`attack: a value hidden by ${name}`, () => {
    assert.equal(redacted(hidden, syntax).text, expected);
  });
}

for (const [name, encode, decode] of [
  ['base64', (text: string) => Buffer.from(text).toString('base64'), (text: string) => Buffer.from(text, 'base64').toString()],
  ['base64url', (text: string) => Buffer.from(text).toString('base64url'), (text: string) => Buffer.from(text, 'base64url').toString()],
  ['base64 of base64', (text: string) => Buffer.from(Buffer.from(text).toString('base64')).toString('base64'), (text: string) => Buffer.from(Buffer.from(text, 'base64').toString(), 'base64').toString()],
] as const) {
  test(`attack: a value hidden in ${name}, which stays ${name}`, () => {
    const { text, findings } = redacted(`{"data":"${encode('my number is 123-45-6789, thanks')}"}`, 'json');
    assert.equal(decode(JSON.parse(text).data), 'my number is [REDACTED_SSN_1], thanks');
    assert.deepEqual(findings, { ssn: 1 });
  });
}

const long = `${'x '.repeat(20_000)}`;
const bodies: readonly (readonly [Syntax, string, string])[] = [
  ['plain', 'call +1 415 555 2671 or 123-45-6789 at 2001:db8::1', 'call [REDACTED_PHONE_1] or [REDACTED_SSN_1] at [REDACTED_IP_ADDRESS_1]'],
  ['json', '{"a":"joe\\u0040example.com","é":"１２３-45-6789","n":4111111111111111}', '{"a":"[REDACTED_EMAIL_1]","é":"[REDACTED_SSN_1]","n":"[REDACTED_CREDIT_CARD_1]"}'],
];

test('attack: values cut at every byte', () => {
  for (const [syntax, body, expected] of bodies) {
    for (let at = 1; at < Buffer.byteLength(body); at++) assert.equal(redacted(body, syntax, [at]).text, expected, `cut at ${at}`);
    assert.equal(redacted(body, syntax, Array.from({ length: Buffer.byteLength(body) }, (_, i) => i)).text, expected, 'byte by byte');
  }
});

test('attack: values at every place of a border between two pieces of a stream', () => {
  for (let shift = 0; shift < 64; shift++) {
    for (const base of [32 << 10, (32 << 10) - 8448]) {
      const before = `${long.slice(0, base - 40 + shift - 1)}\n`;
      const body = `${before}joe@example.com, 4111 1111 1111 1111 and 123-45-6789\n${long}`;
      assert.equal(redacted(body).text, `${before}[REDACTED_EMAIL_1], [REDACTED_CREDIT_CARD_1] and [REDACTED_SSN_1]\n${long}`, `${base}, ${shift}`);
    }
  }
});

test('attack: a private key over the border of two pieces', () => {
  const key = `-----BEGIN PRIVATE KEY-----\n${'MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\n'.repeat(60)}-----END PRIVATE KEY-----`;
  for (const at of [20_000, 24_000, 30_000, 32_700]) {
    const before = `${long.slice(0, at)}\n`;
    assert.equal(redacted(`${before}${key}\n${long}`).text, `${before}[REDACTED_API_KEY_1]\n${long}`);
  }
});

test('a long stream of JSON stays JSON, however it is cut', () => {
  const rows = Array.from({ length: 3000 }, (_, i) => ({ id: i, mail: `user${i % 7}\u00e9@example.com`, card: 4111111111111111, text: 'quote " and \\ and \u2028' }));
  const body = JSON.stringify(rows).replaceAll('@', '\\u0040');
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: body.length }), { maxLength: 20 }), (cuts) => {
      const { text, findings } = redacted(body, 'json', cuts.toSorted((a, b) => a - b));
      const parsed = JSON.parse(text) as typeof rows;
      assert.deepEqual(findings, { email: 3000, credit_card: 3000 });
      for (const [i, row] of parsed.entries()) assert.deepEqual(row, { ...rows[i], mail: `[REDACTED_EMAIL_${(i % 7) + 1}]`, card: '[REDACTED_CREDIT_CARD_1]' });
    }),
    { numRuns: 8 },
  );
});

test('whatever is not personal data passes unchanged', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 2000 }), fc.constantFrom<Syntax>('plain', 'json', 'form'), (bytes, syntax) => {
      const { findings } = redacted(Buffer.from(bytes), syntax);
      fc.pre(Object.keys(findings).length === 0);
      const redactor = new StreamRedactor({ ...options, syntax, replace: () => '[X]' });
      assert.deepEqual(Buffer.concat([redactor.write(Buffer.from(bytes)), redactor.end()]), Buffer.from(bytes));
    }),
  );
});

test('what is only to be logged stays, and is counted', () => {
  const redactor = new StreamRedactor({ ...options, syntax: 'plain', replace: () => null });
  const out = Buffer.concat([redactor.write(Buffer.from('joe@example.com')), redactor.end()]);
  assert.equal(out.toString(), 'joe@example.com');
  assert.deepEqual(redactor.findings, [{ type: 'email', count: 1 }]);
});

test('no token is given out for the beginning of a value whose end has not come', () => {
  const table = new TokenTable();
  const redactor = new StreamRedactor({ ...options, syntax: 'plain', replace: (type, value) => table.tokenFor(type, value, 'host') });
  redactor.write(Buffer.from(`${'x '.repeat(16_384 - 8)}joe@example.co`));
  redactor.write(Buffer.from('m and more'));
  redactor.end();
  assert.equal(table.size, 1);
  assert.equal(table.valueFor('[REDACTED_EMAIL_1]', 'host'), 'joe@example.com');
});

/** Processor time of a body, which other programs on the machine change little. */
function cost(body: string, syntax: Syntax, times: number): number {
  const bytes = Buffer.from(body);
  const before = process.cpuUsage();
  for (let i = 0; i < times; i++) {
    const redactor = new StreamRedactor({ ...options, syntax, replace: () => null });
    redactor.write(bytes);
    redactor.end();
  }
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

for (const [name, unit] of [
  ['digits', '1234567890'], ['signs', '@'], ['nested JSON', '{"a":['], ['base64', 'QUJD'], ['unbalanced quotes', '"'], ['backslashes', '\\'], ['halves of escapes', '%4\\u00&#6'], ['colons', 'a:'], ['keys without values', 'token='],
  ['capitals', 'Aaa '], ['numbers and capitals', '1 Aaaa '], ['dashes', '123-'], ['pluses', '+1 '], ['dots', '1.'], ['beginnings of private keys', '-----BEGIN PRIVATE KEY-----'], ['beginnings of signed tokens', 'eyJ'], ['quoted signs', '"@'], ['invisible characters', '\u200b'], ['full-width digits', '１２'], ['phone words', 'phone 1234567 '],
] as const) {
  test(`attack: four times as much of ${name} costs about four times as much`, () => {
    for (const syntax of ['plain', 'json'] as const) {
      // Within one piece, where a quadratic scanner would show, and over many.
      for (const [size, times] of [[32 << 10, 8], [1 << 20, 1]] as const) {
        const body = unit.repeat(Math.ceil(size / Buffer.byteLength(unit)));
        const quarter = body.slice(0, body.length / 4);
        cost(quarter, syntax, times);
        const small = Math.min(cost(quarter, syntax, times), cost(quarter, syntax, times));
        // Linear is 4, quadratic is 16. Collecting garbage takes its share.
        assert.ok(Math.min(cost(body, syntax, times), cost(body, syntax, times)) < small * 9 + 50_000, `${syntax}, ${size} bytes`);
      }
    }
  });
}
