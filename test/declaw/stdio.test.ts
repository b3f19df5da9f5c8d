import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collect, eventsOf, open, type ServerSentEvent } from '../harness/http.ts';
import { sandboxOfThisFile } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually, sleep, within } from '../harness/wait.ts';

const server = serverOfThisFile();
const sandbox = sandboxOfThisFile();

async function replay(cmdId: string, after?: number): Promise<ServerSentEvent[]> {
  const query = after === undefined ? '' : `?last_entry_id=${after}`;
  const message = await open(server.url, 'GET', `/sandboxes/${sandbox().sandboxId}/stdio/${cmdId}/stream${query}`, { key: server.apiKey });
  assert.equal(message.statusCode, 200);
  return within(15_000, `the replay of ${cmdId}`, collect(eventsOf(message)));
}

const text = (events: readonly ServerSentEvent[], type: string): string =>
  Buffer.concat(events.filter((each) => each.event === type).map((each) => Buffer.from(each.data.data, 'base64'))).toString('utf8');

test('a conversation: input goes in, both outputs come out, the end of input ends it', async () => {
  let out = '';
  let err = '';
  const cat = await sandbox().stdio.start('while read -r line; do echo "got $line"; echo "saw $line" >&2; done; exit 4', {
    onStdout: (data) => (out += Buffer.from(data).toString()),
    onStderr: (data) => (err += Buffer.from(data).toString()),
  });
  await cat.sendStdin('first\n');
  await eventually(() => out === 'got first\n');
  await cat.sendStdin(new TextEncoder().encode('zweite 🦊\n'));
  await cat.closeStdin();
  assert.deepEqual(await cat.wait(), { exitCode: 4 });
  assert.equal(out, 'got first\ngot zweite 🦊\n');
  assert.equal(err, 'saw first\nsaw zweite 🦊\n');
});

test('every byte goes through, in both directions', async () => {
  const all = Uint8Array.from({ length: 1024 }, (_, i) => i % 256);
  const received: Buffer[] = [];
  const cat = await sandbox().stdio.start('cat');
  await cat.sendStdin(all);
  await cat.closeStdin();
  await cat.stream({ onStdout: (data) => received.push(Buffer.from(data)) });
  assert.deepEqual(Buffer.concat(received), Buffer.from(all));
});

test('a late reader gets everything from the start, again and again, also after the end', async () => {
  const process = await sandbox().stdio.start('echo a; sleep 0.2; echo b >&2; sleep 0.2; echo c; exit 11');
  await sleep(1500);
  const first = await replay(process.cmdId);
  assert.equal(text(first, 'stdout'), 'a\nc\n');
  assert.equal(text(first, 'stderr'), 'b\n');
  assert.deepEqual(first.at(-1), { event: 'exit', data: { exit_code: 11 } });
  const ids = first.slice(0, -1).map((each) => each.data.entry_id as number);
  assert.deepEqual(ids, ids.toSorted((a, b) => a - b));
  assert.ok(ids.every((id) => Number.isInteger(id) && id > 0) && new Set(ids).size === ids.length);

  assert.deepEqual(await replay(process.cmdId, 0), first);
  assert.deepEqual(await replay(process.cmdId, ids[0]), first.slice(1));
  assert.deepEqual(await replay(process.cmdId, ids.at(-1)), first.slice(-1));
});

test('a reader that left comes back by number and misses nothing, while the process goes on without it', async () => {
  const process = await sandbox().stdio.start('for i in 1 2 3 4 5 6 7 8; do echo "line $i"; sleep 0.2; done');
  const reader = new AbortController();
  const message = await open(server.url, 'GET', `/sandboxes/${sandbox().sandboxId}/stdio/${process.cmdId}/stream`, { key: server.apiKey, signal: reader.signal });
  const before: ServerSentEvent[] = [];
  for await (const event of eventsOf(message)) {
    before.push(event);
    if (text(before, 'stdout').includes('line 3')) break;
  }
  reader.abort();
  await sleep(500);
  const after = await replay(process.cmdId, before.at(-1)?.data.entry_id);
  assert.equal(text(before, 'stdout') + text(after, 'stdout'), Array.from({ length: 8 }, (_, i) => `line ${i + 1}\n`).join(''));
  assert.deepEqual(after.at(-1), { event: 'exit', data: { exit_code: 0 } });
});

test('two readers see the same', async () => {
  const process = await sandbox().stdio.start('for i in 1 2 3; do echo $i; sleep 0.1; done');
  const [one, two] = await Promise.all([replay(process.cmdId), replay(process.cmdId)]);
  assert.deepEqual(one, two);
});

test('killing ends the process and everybody who reads it', async () => {
  const process = await sandbox().stdio.start('echo begun; sleep 4911 & sleep 4912');
  const { promise: attached, resolve } = Promise.withResolvers<void>();
  const reading = process.stream({ onStdout: () => resolve() });
  await attached;
  assert.equal(await process.kill(), true);
  const { exitCode } = await within(10_000, 'the reader of a killed process', reading);
  assert.notEqual(exitCode, 0);
  assert.equal(await process.kill(), false);
  assert.equal((await sandbox().commands.run(`ps -eo args | grep '[s]leep 491'`)).stdout, '');
});

test('user, directory and environment are taken', async () => {
  const process = await sandbox().stdio.start('echo "$(id -un) $(pwd) $COLOUR"', { user: 'root', cwd: '/usr', envs: { COLOUR: 'blue' } });
  assert.equal(text(await replay(process.cmdId), 'stdout'), 'root /usr blue\n');
});

test('sessions nobody knows are 404, input after the end is refused, base64 that is none is 400', async () => {
  const root = `/sandboxes/${sandbox().sandboxId}/stdio`;
  assert.equal((await server.call('GET', `${root}/nope/stream`)).status, 404);
  assert.equal((await server.call('POST', `${root}/nope/stdin`, { json: { data: '' } })).status, 404);
  assert.equal((await server.call('POST', `${root}/nope/stdin/close`)).status, 404);
  assert.deepEqual((await server.call('DELETE', `${root}/nope`)).json, { killed: false });
  const ended = await sandbox().stdio.start('true');
  await ended.wait();
  await assert.rejects(ended.sendStdin('late'), /HTTP 409/);
  const cat = await sandbox().stdio.start('cat');
  assert.equal((await server.call('POST', `${root}/${cat.cmdId}/stdin`, { json: { data: '***' } })).status, 400);
  await cat.kill();
});
