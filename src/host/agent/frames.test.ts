import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { OutputEvent } from '../../core/host.ts';
import { AgentProtocolError, decodeFrames } from './frames.ts';

function encode(type: number, entry: number, payload: Uint8Array | string): Buffer {
  const body = Buffer.from(payload);
  const head = Buffer.alloc(13);
  head.writeUInt8(type, 0);
  head.writeBigUInt64BE(BigInt(entry), 1);
  head.writeUInt32BE(body.length, 9);
  return Buffer.concat([head, body]);
}

async function decode(...chunks: Buffer[]): Promise<OutputEvent[]> {
  const events: OutputEvent[] = [];
  const source = (async function* () {
    yield* chunks;
  })();
  for await (const event of decodeFrames(source)) events.push(event);
  return events;
}

const exit = encode(4, 3, '{"exit_code":0,"signal":null,"reason":"exited"}');

test('frames are decoded wherever the stream is cut', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 8 }), fc.array(fc.nat(2000)), async (payloads, cuts) => {
      const stream = Buffer.concat([...payloads.map((payload, i) => encode((i % 3) + 1, i + 1, payload)), exit]);
      const at = [...new Set([0, ...cuts.map((cut) => cut % stream.length), stream.length])].sort((a, b) => a - b);
      const chunks = at.slice(1).map((end, i) => stream.subarray(at[i], end));
      const events = await decode(...chunks);
      assert.equal(events.length, payloads.length + 1);
      payloads.forEach((payload, i) => {
        const event = events[i];
        assert.ok(event !== undefined && event.type === ['stdout', 'stderr', 'terminal'][i % 3]);
        assert.ok('data' in event && event.data.equals(payload) && event.entry === i + 1);
      });
    }),
    { numRuns: 200 },
  );
});

test('the stream is over with the exit frame, whatever follows', async () => {
  const events = await decode(exit, encode(1, 9, 'late'));
  assert.deepEqual(events, [{ type: 'exit', entry: 3, exit: { exitCode: 0, signal: null, reason: 'exited' } }]);
});

test('keep-alives and frames of a later version are passed over', async () => {
  assert.equal((await decode(encode(6, 0, ''), encode(200, 1, 'new'), exit)).length, 1);
});

test('a hostile agent is cut off', async (t) => {
  const attacks: [name: string, bytes: Buffer][] = [
    ['a frame of four gigabytes', Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255])],
    ['a frame just above the limit', encode(1, 1, Buffer.alloc(65_537))],
    ['an entry number beyond exact integers', Buffer.concat([Buffer.from([1]), Buffer.alloc(8, 255), Buffer.alloc(4)])],
    ['a stream that ends inside a frame', exit.subarray(0, 20)],
    ['an exit that is no JSON', encode(4, 1, '{')],
    ['an exit without a code', encode(4, 1, '{"reason":"exited"}')],
    ['an exit code that is text', encode(4, 1, '{"exit_code":"0","reason":"exited"}')],
    ['a start whose id climbs out of its path', encode(7, 0, '{"id":"../../claim","pid":1,"started_at_ms":0}')],
    ['JSON that is a list', encode(5, 1, '[1]')],
  ];
  for (const [name, bytes] of attacks) {
    await t.test(name, () => assert.rejects(decode(bytes), AgentProtocolError));
  }
});
