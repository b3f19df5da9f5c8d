import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { PaddockError } from '../../core/errors.ts';
import type { SandboxId } from '../../core/ids.ts';
import { Cursors } from './cursor.ts';

const cursors = new Cursors(randomBytes(32));
const positions = fc.record({ createdAt: fc.nat({ max: Number.MAX_SAFE_INTEGER }), id: fc.uuid().map((id) => id as SandboxId) }, { noNullPrototype: true });

function refused(token: string): void {
  assert.throws(() => cursors.read(token), (error: unknown) => error instanceof PaddockError && error.code === 'invalid_argument' && error.detail.field === 'next_token', token);
}

test('a cursor comes back as it was', () => {
  fc.assert(fc.property(positions, (position) => assert.deepEqual(cursors.read(cursors.write(position)), position)));
});

test('a cursor needs no escaping in a URL', () => {
  fc.assert(fc.property(positions, (position) => assert.match(cursors.write(position), /^[A-Za-z0-9_-]{48}$/)));
});

test('no changed character is accepted', () => {
  fc.assert(
    fc.property(positions, fc.nat({ max: 47 }), fc.constantFrom(...'ABCabc019_-='), (position, at, letter) => {
      const token = cursors.write(position);
      fc.pre(token[at] !== letter);
      refused(token.slice(0, at) + letter + token.slice(at + 1));
    }),
  );
});

test('nothing that somebody else wrote is accepted', () => {
  fc.assert(fc.property(fc.string(), refused));
  refused(new Cursors(randomBytes(32)).write({ createdAt: 1, id: '00000000-0000-4000-8000-000000000000' as SandboxId }));
  refused(`${cursors.write({ createdAt: 1, id: '00000000-0000-4000-8000-000000000000' as SandboxId })}=`);
});
