import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PaddockError } from '../../core/errors.ts';
import type { OutputEvent, ProcessExit } from '../../core/host.ts';
import { commandFrames, ptyFrames, stdioFrames } from './sse.ts';

const exit = (exitCode: number): OutputEvent => ({ type: 'exit', entry: 99, exit: { exitCode, signal: null, reason: 'exited' } satisfies ProcessExit });
const out = (type: 'stdout' | 'stderr' | 'terminal', data: string | Buffer, entry = 1): OutputEvent => ({ type, entry, data: Buffer.from(data) });
const never = new AbortController().signal;

async function* from(events: readonly OutputEvent[], failure?: Error): AsyncGenerator<OutputEvent> {
  yield* events;
  if (failure !== undefined) throw failure;
}

async function textOf(frames: AsyncIterable<string>): Promise<string> {
  let text = '';
  for await (const frame of frames) text += frame;
  return text;
}

/** What the strictest of the official parsers understands: LF only, one space after each colon, one data line. */
function parse(text: string): { event: string; data: Record<string, unknown> }[] {
  return text
    .split('\n\n')
    .slice(0, -1)
    .filter((frame) => !frame.startsWith(': '))
    .map((frame) => {
      const match = /^event: (\S+)\ndata: (\S.*)$/.exec(frame);
      assert.ok(match, JSON.stringify(frame));
      return { event: match[1]!, data: JSON.parse(match[2]!) as Record<string, unknown> };
    });
}

test('a streamed command looks as the contract shows it', async () => {
  assert.equal(
    await textOf(commandFrames(from([out('stdout', 'building…\n'), out('stderr', 'warn: cache miss\n'), exit(0)]), never)),
    'event: stdout\ndata: {"type":"stdout","stream":"stdout","data":"building…\\n"}\n\n' +
      'event: stderr\ndata: {"type":"stderr","stream":"stderr","data":"warn: cache miss\\n"}\n\n' +
      'event: exit\ndata: {"exit_code":0}\n\n',
  );
});

test('text cut anywhere, in any language, arrives whole', async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: 'grapheme', maxLength: 60 }), fc.array(fc.nat({ max: 200 }), { maxLength: 8 }), async (text, cuts) => {
      const bytes = Buffer.from(text);
      const places = [...cuts.map((cut) => Math.min(cut, bytes.length)), bytes.length].sort((a, b) => a - b);
      let start = 0;
      const events = places.map((place) => out('stdout', bytes.subarray(start, (start = place))));
      const frames = parse(await textOf(commandFrames(from([...events, exit(3)]), never)));
      assert.deepEqual(frames.pop(), { event: 'exit', data: { exit_code: 3 } });
      assert.equal(frames.map((frame) => frame.data['data']).join(''), text);
      assert.ok(frames.every((frame) => frame.data['data'] !== ''));
    }),
  );
});

test('what never becomes a character is shown before the exit, not lost', async () => {
  const frames = parse(await textOf(commandFrames(from([out('stdout', Buffer.from([0x61, 0xc3])), exit(0)]), never)));
  assert.deepEqual(frames.map((frame) => frame.data['data'] ?? frame.data['exit_code']), ['a', '\ufffd', 0]);
});

test('line breaks of every kind stay inside one data line', async () => {
  const text = await textOf(commandFrames(from([out('stdout', 'a\r\nb\rc\n\nd\u2028e\u0085f\u2029'), exit(0)]), never));
  assert.equal(parse(text)[0]?.data['data'], 'a\r\nb\rc\n\nd\u2028e\u0085f\u2029');
  assert.doesNotMatch(text, /[\r\v\f\u0085\u2028\u2029]/);
});

test('large output comes in lines that every client can take', async () => {
  const text = await textOf(commandFrames(from([out('stdout', Buffer.alloc(300_000, 0x01)), exit(0)]), never));
  const longest = Math.max(...text.split('\n').map((line) => line.length));
  assert.ok(longest < 1_000_000, String(longest));
  assert.equal(parse(text).map((frame) => frame.data['data'] ?? '').join('').length, 300_000);
});

test('a stream always ends with an exit or an error, because a client takes silence for success', async () => {
  const failed = parse(await textOf(commandFrames(from([out('stdout', 'a')], new PaddockError('deadline_exceeded', 'command timed out after 60 s')), never)));
  assert.deepEqual(failed.at(-1), { event: 'error', data: { error: 'command timed out after 60 s' } });
  assert.equal(parse(await textOf(commandFrames(from([]), never))).at(-1)?.event, 'error');
  assert.deepEqual(parse(await textOf(commandFrames(from([], new Error('aborted')), AbortSignal.abort()))).at(-1), { event: 'error', data: { error: 'the server is being stopped' } });
});

test('nothing follows the exit', async () => {
  const frames = parse(await textOf(commandFrames(from([exit(1), out('stdout', 'late')]), never)));
  assert.deepEqual(frames, [{ event: 'exit', data: { exit_code: 1 } }]);
});

test('stdio events carry base64 and the number a reader comes back with', async () => {
  assert.equal(
    await textOf(stdioFrames(from([out('stdout', '{"jsonrpc":"2.0"}\n', 1), out('stderr', 'ready\n', 2), exit(0)]))),
    'event: stdout\ndata: {"entry_id":1,"data":"eyJqc29ucnBjIjoiMi4wIn0K"}\n\nevent: stderr\ndata: {"entry_id":2,"data":"cmVhZHkK"}\n\nevent: exit\ndata: {"exit_code":0}\n\n',
  );
});

test('output that was dropped shows as a comment, which every parser skips', async () => {
  assert.equal(await textOf(stdioFrames(from([{ type: 'gap', entry: 5, lostBytes: 42 }, exit(0)]))), ': 42 bytes were dropped because nobody read them in time\n\nevent: exit\ndata: {"exit_code":0}\n\n');
});

test('a comment cannot break out of its line', async () => {
  assert.equal(await textOf(ptyFrames(from([], new Error('x\n\nevent: exit\ndata: {"exit_code":0}')))), ': stream ended: x  event: exit data: {"exit_code":0}\n\n');
});

test('terminal bytes come as base64, whatever they are', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 100 }), { maxLength: 5 }), async (chunks) => {
      const frames = parse(await textOf(ptyFrames(from([...chunks.map((chunk) => out('terminal', Buffer.from(chunk))), exit(130)]))));
      assert.deepEqual(frames.pop(), { event: 'exit', data: { exit_code: 130 } });
      assert.deepEqual(Buffer.concat(frames.map((frame) => Buffer.from(String(frame.data['data']), 'base64'))), Buffer.concat(chunks));
    }),
  );
});
