import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { newSandboxId } from './ids.ts';
import { Tokens } from './tokens.ts';

describe('the tokens of a sandbox', () => {
  const tokens = new Tokens(Buffer.alloc(32, 1));
  const id = newSandboxId();

  it('are the same every time', () => {
    assert.equal(tokens.agent({ id, generation: 1 }), new Tokens(Buffer.alloc(32, 1)).agent({ id, generation: 1 }));
    assert.match(tokens.agent({ id, generation: 1 }), /^envd-[A-Za-z0-9_-]{43}$/);
    assert.match(tokens.traffic({ id, generation: 1 }), /^traffic-[A-Za-z0-9_-]{43}$/);
  });

  it('differ by sandbox, kind, generation and key', () => {
    const all = [
      tokens.agent({ id, generation: 1 }),
      tokens.agent({ id, generation: 2 }),
      tokens.agent({ id: newSandboxId(), generation: 1 }),
      tokens.traffic({ id, generation: 1 }),
      new Tokens(Buffer.alloc(32, 2)).agent({ id, generation: 1 }),
    ].map((token) => token.replace(/^\w+-/, ''));
    assert.equal(new Set(all).size, all.length);
  });

  it('need a key of at least 32 bytes', () => {
    assert.throws(() => new Tokens(Buffer.alloc(16)), { code: 'internal', message: 'the token key must have at least 32 bytes, not 16' });
  });
});
