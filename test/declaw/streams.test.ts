import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidArgumentError, SandboxError } from '@declaw/sdk';
import { collect, eventsOf, open, type ServerSentEvent } from '../harness/http.ts';
import { sandboxOfThisFile } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually } from '../harness/wait.ts';

const server = serverOfThisFile();
const sandbox = sandboxOfThisFile();

const openStream = (json: unknown) => open(server.url, 'POST', `/sandboxes/${sandbox().sandboxId}/commands/stream`, { json, key: server.apiKey });

async function streamed(json: unknown): Promise<ServerSentEvent[]> {
  const message = await openStream(json);
  assert.equal(message.statusCode, 200);
  return collect(eventsOf(message));
}

test('a stream gives both outputs as they come, and the exit code', async () => {
  const seen: [string, string, number][] = [];
  const started = Date.now();
  const result = await sandbox().commands.runStream('echo one; echo two >&2; sleep 1; echo three; exit 6', {
    onStdout: (data) => seen.push(['out', data, Date.now() - started]),
    onStderr: (data) => seen.push(['err', data, Date.now() - started]),
  });
  assert.deepEqual(result, { stdout: 'one\nthree\n', stderr: 'two\n', exitCode: 6 });
  const [first, last] = [seen[0], seen.at(-1)];
  assert.equal(last?.[1], 'three\n');
  assert.ok(last[2] - (first?.[2] ?? 0) > 800, 'the first output did not come before the command ended');
});

test('every event has the names that both kinds of client read', async () => {
  const message = await openStream({ cmd: 'echo o; sleep 0.1; echo e >&2; sleep 0.1; exit 3', stream: true });
  assert.match(String(message.headers['content-type']), /^text\/event-stream/);
  assert.match(String(message.headers['cache-control']), /no-cache/);
  assert.deepEqual(await collect(eventsOf(message)), [
    { event: 'stdout', data: { type: 'stdout', stream: 'stdout', data: 'o\n' } },
    { event: 'stderr', data: { type: 'stderr', stream: 'stderr', data: 'e\n' } },
    { event: 'exit', data: { exit_code: 3 } },
  ]);
});

test('a character whose bytes come apart in time arrives whole', async () => {
  const events = await streamed({ cmd: `printf 'a\\xe2'; sleep 0.3; printf '\\x82'; sleep 0.3; printf '\\xacz\\xf0\\x9f'; sleep 0.3; printf '\\xa6\\x8a'; sleep 0.1; printf '\\xe2' >&2` });
  const text = (type: string) => events.filter((each) => each.event === type).map((each) => each.data.data).join('');
  assert.equal(text('stdout'), 'a€z🦊');
  assert.equal(text('stderr'), '\ufffd', 'a sequence that never ends is shown as broken when the output ends');
});

test('a stream carries all of 50 MB, in pieces that every client can take', async () => {
  const message = await openStream({ cmd: 'yes 0123456789abcde | head -c 50000000', timeout: 120 });
  let bytes = 0;
  let longest = 0;
  let exit: unknown;
  for await (const { event, data } of eventsOf(message)) {
    if (event === 'exit') exit = data;
    else {
      bytes += data.data.length;
      longest = Math.max(longest, JSON.stringify(data).length);
    }
  }
  assert.deepEqual(exit, { exit_code: 0 });
  assert.equal(bytes, 50_000_000);
  assert.ok(longest < 512 * 1024, `an event of ${longest} characters`);
});

test('a streamed command that runs out of time ends with an error event that says so', async () => {
  const events = await streamed({ cmd: 'echo begun; sleep 4811', timeout: 1 });
  assert.equal(events[0]?.data.data, 'begun\n');
  assert.match(events.at(-1)?.data.error, /timed out after 1 s/);
  await assert.rejects(sandbox().commands.runStream('sleep 4811', { timeout: 1 }), (error) => error instanceof SandboxError && /timed out after 1 s/.test(error.message));
  assert.equal((await sandbox().commands.run(`ps -eo args | grep '[s]leep 4811'`)).stdout, '');
});

test('what is wrong before the stream begins is a plain error', async () => {
  await assert.rejects(sandbox().commands.runStream('true', { cwd: '/not/there' }), (error) => error instanceof InvalidArgumentError && /\/not\/there/.test(error.message));
});

test('a stream with background children ends with its command', async () => {
  const events = await streamed({ cmd: 'sleep 4821 & echo left behind' });
  assert.deepEqual(events.map((each) => each.event), ['stdout', 'exit']);
});

test('a reader that goes away does no harm to the next', async () => {
  const reader = new AbortController();
  const message = await open(server.url, 'POST', `/sandboxes/${sandbox().sandboxId}/commands/stream`, { json: { cmd: 'yes', timeout: 5 }, key: server.apiKey, signal: reader.signal });
  await new Promise((resolve) => message.once('data', resolve));
  reader.abort();
  message.on('error', () => {}); // our own abort
  assert.equal((await sandbox().commands.run('echo next')).stdout, 'next\n');
});

test('streams that are silent send keep-alives', async () => {
  const { cmdId } = await sandbox().stdio.start('sleep 60');
  const { pid } = await sandbox().pty.create();
  const root = `/sandboxes/${sandbox().sandboxId}`;
  const reader = new AbortController();
  const options = { key: server.apiKey, signal: reader.signal };
  const messages = await Promise.all([
    open(server.url, 'POST', `${root}/commands/stream`, { ...options, json: { cmd: 'sleep 60' } }),
    open(server.url, 'GET', `${root}/stdio/${cmdId}/stream`, options),
    open(server.url, 'GET', `${root}/pty/${pid}/stream`, options),
  ]);
  const comments = messages.map(() => 0);
  const readers = messages.map(async (message, i) => {
    try {
      for await (const _ of eventsOf(message, () => (comments[i] = (comments[i] ?? 0) + 1))) void _;
    } catch (reason) {
      if (!reader.signal.aborted) throw reason;
    }
  });
  await eventually(() => comments.every((count) => count > 0), { withinMs: 25_000, everyMs: 200 });
  reader.abort();
  await Promise.all(readers);
});
