import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PaddockError } from '../../core/errors.ts';
import type { OutputEvent } from '../../core/host.ts';
import { collect, runInput, streamFrames } from './exec.ts';

async function* events(...parts: (readonly ['stdout' | 'stderr', string | Buffer] | number | Error)[]): AsyncGenerator<OutputEvent> {
  let entry = 0;
  for (const part of parts) {
    entry += 1;
    if (part instanceof Error) throw part;
    if (typeof part === 'number') yield { type: 'exit', entry, exit: { exitCode: part, signal: null, reason: 'exited' } };
    else yield { type: part[0], entry, data: Buffer.from(part[1]) };
  }
}
const timeout = new PaddockError('deadline_exceeded', 'timed out');

test('a command without args is a line for /bin/sh, one with args is run as it is', () => {
  assert.deepEqual(runInput({ command: 'echo $A' }), { cmd: 'echo $A', argv: ['/bin/sh', '-c', 'echo $A'], timeoutSeconds: 30 });
  assert.deepEqual(runInput({ command: 'echo', args: ["it's", '$A'], working_dir: '/tmp', env: { A: '1' }, timeout_s: 2 }), {
    cmd: `'echo' 'it'\\''s' '$A'`,
    argv: ['echo', "it's", '$A'],
    cwd: '/tmp',
    envs: { A: '1' },
    timeoutSeconds: 2,
  });
});

for (const [what, body] of [
  ['no command', {}],
  ['an empty command', { command: '' }],
  ['a field that nobody knows', { command: 'x', user: 'root' }],
  ['a number as command', { command: 1 }],
  ['a negative timeout', { command: 'x', timeout_s: -1 }],
  ['no object', undefined],
] as const) {
  test(`${what} is refused`, () => assert.throws(() => runInput(body), { code: 'invalid_argument' }));
}

test('output is collected, and bytes that are no UTF-8 are replaced', async () => {
  assert.deepEqual(await collect(events(['stdout', Buffer.from('é').subarray(0, 1)], ['stdout', Buffer.from('é').subarray(1)], ['stderr', Buffer.of(0xff)], 3)), { stdout: 'é', stderr: '\uFFFD', exit_code: 3 });
});

test('a command that ran out of time has exited with 124 and what it wrote', async () => {
  assert.deepEqual(await collect(events(['stdout', 'so far'], timeout)), { stdout: 'so far', stderr: '', exit_code: 124 });
  await assert.rejects(collect(events(new PaddockError('gone', 'died'))), { code: 'gone' });
});

test('both streams share 8 MiB, and what is more is said to be missing', async () => {
  const mib = Buffer.alloc(1024 * 1024, 'x');
  const whole = (await collect(events(...Array.from({ length: 8 }, (_, i) => [i % 2 === 0 ? 'stdout' : 'stderr', mib] as const), 0))) as { stdout: string; stderr: string; truncated?: boolean };
  assert.deepEqual([whole.stdout.length, whole.stderr.length, whole.truncated], [4 * mib.length, 4 * mib.length, undefined]);
  const cut = (await collect(events(...Array.from({ length: 9 }, () => ['stdout', mib] as const), 0))) as { stdout: string; stderr: string; truncated?: boolean };
  assert.equal(cut.stdout.length, 8 * mib.length);
  assert.equal(cut.truncated, true);
  assert.match(cut.stderr, /output truncated/);
});

test('the answer stays below what the SDK reads, whatever the output is made of', async () => {
  for (const byte of [0x01, 0x0a, 0x22, 0xff]) {
    const answer = await collect(events(...Array.from({ length: 130 }, () => ['stdout', Buffer.alloc(65_536, byte)] as const), 0));
    assert.ok(Buffer.byteLength(JSON.stringify(answer)) < 10 * 1024 * 1024, `byte ${byte}`);
  }
});

test('a stream ends with what its command exited with, with 124 after its time, and without an end when it was lost', async () => {
  const frames = async (...parts: Parameters<typeof events>): Promise<any[]> => {
    const found = [];
    for await (const frame of streamFrames(events(...parts), new AbortController().signal)) for (const [, json = ''] of frame.matchAll(/^data: (.*)\n\n/gm)) found.push({ ...JSON.parse(json), timestamp: undefined });
    return JSON.parse(JSON.stringify(found));
  };
  assert.deepEqual(await frames(['stdout', 'a\u2028'], ['stderr', 'b'], 4), [{ stdout: 'a\u2028' }, { stderr: 'b' }, { exit_code: 4, finished: true }]);
  assert.deepEqual(await frames(['stdout', 'a'], timeout), [{ stdout: 'a' }, { exit_code: 124, finished: true }]);
  assert.deepEqual(await frames(new PaddockError('gone', 'it died')), [{ error: 'it died', code: 'exec_failed' }]);
  assert.deepEqual(await frames(), [{ error: 'the connection to the command was lost', code: 'exec_failed' }]);
});
