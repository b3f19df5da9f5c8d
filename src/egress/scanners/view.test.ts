import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { closing, inside, meaningOf, outside, type Syntax, viewOf } from './view.ts';

const syntaxes = fc.constantFrom<Syntax>('plain', 'json', 'form', 'path');
const pieces = fc.array(fc.constantFrom('a', '@', '\\u0040', '\\n', '\\\\', '\\', '%40', '%', '%C3%A9', '%f0%9f%98%80', '&#64;', '&amp;', '&', 'é', '😀', '\u200b', '１', '"', '\n', '\\ud83d\\ude00', '\\ud83d', '+', '\0'), { maxLength: 40 });

test('every character knows the bytes that it came from, in order and without gaps that are seen', () => {
  fc.assert(
    fc.property(pieces, syntaxes, (parts, syntax) => {
      const view = viewOf(Buffer.from(parts.join('')), syntax);
      for (let at = 0; at < view.text.length; at++) {
        assert.ok(view.endOf(at) > view.startOf(at) && view.endOf(at) <= view.bytes.length);
        // The two units of one character share its bytes.
        if (at > 0) assert.ok(view.startOf(at) >= view.endOf(at - 1) || (view.startOf(at) === view.startOf(at - 1) && /[\udc00-\udfff]/.test(view.text[at]!)));
      }
      assert.equal(view.startOf(view.text.length), view.bytes.length);
    }),
  );
});

test('any bytes have a view', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), syntaxes, (bytes, syntax) => viewOf(Buffer.from(bytes), syntax).text.length <= bytes.length));
});

test('what is read is what was meant', () => {
  const text = (written: string, syntax: Syntax = 'plain'): string => viewOf(Buffer.from(written), syntax).text;
  assert.equal(text('a\\u0040b \\ud83d\\ude00'), 'a@b 😀');
  assert.equal(text('%61%40%C3%A9 100% %zz'), 'a@é 100% %zz');
  assert.equal(text('&#64;&#x40;&commat;&amp;#64;&nope;&'), '@@@@&nope;&');
  assert.equal(text('a+b', 'form'), 'a b');
  assert.equal(text('a+b', 'path'), 'a+b');
  assert.equal(text('１２３－４\u200b５\u00ad'), '123-45');
  assert.equal(meaningOf(Buffer.from('１\\u200b'), 'json'), '１\u200b');
});

test('in JSON strings are told from structure, and an unbalanced quote ends with its line', () => {
  const places = [...viewOf(Buffer.from('{"a\\"":1}\n"x\n1'), 'json').places!];
  assert.deepEqual(places, [outside, outside, inside, inside, inside, closing, outside, outside, outside, outside, outside, inside, closing, outside]);
});
