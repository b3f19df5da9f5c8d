import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from './errors.ts';
import type { OutputEvent } from './host.ts';
import type { SandboxId } from './ids.ts';
import { Server, never, until } from './testing/server.ts';

interface Started {
  readonly server: Server;
  readonly ref: { readonly id: SandboxId };
}

async function start(settings: Parameters<typeof Server.start>[0] = {}): Promise<Started & AsyncDisposable> {
  const server = await Server.start(settings);
  const { id } = await server.create();
  return { server, ref: { id }, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

async function gather(events: AsyncIterable<OutputEvent>): Promise<{ text: string; exit: number | null }> {
  const chunks: Buffer[] = [];
  let exit: number | null = null;
  for await (const event of events) {
    if ('data' in event) chunks.push(event.data);
    if (event.type === 'exit') exit = event.exit.exitCode;
  }
  return { text: Buffer.concat(chunks).toString(), exit };
}

const guestOf = ({ server, ref }: Started): ReturnType<Server['host']['memory']> => server.host.memory(ref.id);
const forgotten = (started: Started): Promise<void> => until('the guest has forgotten all processes', () => guestOf(started).processes_.size === 0);

describe('a foreground command', () => {
  it('gives its output apart, its exit code and its pid, and is forgotten by the guest', async () => {
    await using it = await start();
    const { server, ref } = it;
    const result = await server.processes.run(server.principal, ref, { cmd: 'print out; err bad; exit 3', timeoutSeconds: 10 }, never);
    assert.deepEqual(result, { stdout: 'out', stderr: 'bad', exitCode: 3, truncated: false, pid: 11 });
    await forgotten(it);
  });

  it('shows bytes that are no UTF-8 as replacement characters, and keeps characters that come in two parts', async () => {
    await using it = await start();
    const { server, ref } = it;
    const result = await server.processes.run(server.principal, ref, { cmd: 'bytes c3; bytes bc; bytes ff; bytes e2', timeoutSeconds: 10 }, never);
    assert.equal(result.stdout, 'ü\u{fffd}\u{fffd}');
  });

  it('keeps output up to the bound and says that some is missing', async () => {
    await using it = await start({ maxOutputBytes: 5 });
    const { server, ref } = it;
    const result = await server.processes.run(server.principal, ref, { cmd: 'print 1234; bytes c3bc; print 6; err ok', timeoutSeconds: 10 }, never);
    assert.deepEqual(result, { stdout: '1234', stderr: 'ok', exitCode: 0, truncated: true, pid: 11 });
  });

  it('is killed at its deadline, and the error has the output so far', async () => {
    await using it = await start();
    const { server, ref } = it;
    const begun = performance.now();
    await assert.rejects(server.processes.run(server.principal, ref, { cmd: 'print early; sleep 3000; print late', timeoutSeconds: 0.3 }, never), (error: PaddockError) => {
      assert.equal(error.code, 'deadline_exceeded');
      assert.equal(error.message, 'the command timed out after 0.3 s and was killed; give a longer timeout, or run it in the background');
      assert.deepEqual(error.detail.partial, { stdout: 'early', stderr: '' });
      return true;
    });
    assert.ok(performance.now() - begun < 1300);
    await forgotten(it);
  });

  it('is killed when its caller leaves', async () => {
    await using it = await start();
    const { server, ref } = it;
    const caller = new AbortController();
    const running = server.processes.run(server.principal, ref, { cmd: 'sleep 3000', timeoutSeconds: 0 }, caller.signal);
    running.catch(() => undefined);
    await until('it runs', () => guestOf(it).processes_.size === 1);
    caller.abort();
    await assert.rejects(running, { code: 'conflict' });
    await forgotten(it);
  });

  it('is killed when its caller leaves while it is being started', async () => {
    await using it = await start();
    const { server, ref } = it;
    const caller = new AbortController();
    const running = server.processes.run(server.principal, ref, { cmd: 'sleep 3000', timeoutSeconds: 0 }, caller.signal);
    running.catch(() => undefined);
    setImmediate(() => caller.abort());
    await assert.rejects(running, { code: 'conflict' });
    await forgotten(it);
  });

  it('fails at once with the reason when the sandbox ends', async () => {
    await using it = await start();
    const { server, ref } = it;
    const running = server.processes.run(server.principal, ref, { cmd: 'sleep 3000', timeoutSeconds: 0 }, never);
    running.catch(() => undefined);
    await until('it runs', () => guestOf(it).processes_.size === 1);
    server.host.kill(ref.id, { reason: 'out_of_memory', detail: '' });
    await assert.rejects(running, (error: PaddockError) => {
      assert.equal(error.code, 'gone');
      assert.match(error.message, /^the sandbox has ended: it used more memory than it may, at /);
      return true;
    });
  });

  for (const [what, input, field] of [
    ['an empty line', { cmd: '' }, 'cmd'],
    ['a line with NUL', { cmd: 'a\0b' }, 'cmd'],
    ['a line that Linux would not take', { cmd: 'x'.repeat(131_072) }, 'cmd'],
    ['a bad environment name', { cmd: 'x', envs: { 'a=b': '' } }, 'envs'],
    ['a negative timeout', { cmd: 'x', timeoutSeconds: -1 }, 'timeout'],
    ['a timeout that is no number', { cmd: 'x', timeoutSeconds: Number.NaN }, 'timeout'],
  ] as const) {
    it(`is refused with ${what}`, async () => {
      await using it = await start();
      await assert.rejects(it.server.processes.run(it.server.principal, it.ref, { timeoutSeconds: 1, ...input }, never), (error: PaddockError) => {
        assert.equal(error.code, 'invalid_argument');
        assert.equal(error.detail.field, field);
        return true;
      });
      assert.equal(guestOf(it).processes_.size, 0);
    });
  }

  it('that lost its request in a restart of the server is ended', async () => {
    await using it = await start();
    const { server, ref } = it;
    server.processes.run(server.principal, ref, { cmd: 'sleep 5000', timeoutSeconds: 0 }, never).catch(() => undefined);
    const background = await server.processes.startBackground(server.principal, ref, { cmd: 'sleep 500', timeoutSeconds: 0 }, never);
    await server.restart();
    await until('only the background command is left', () => guestOf(it).processes_.size === 1);
    assert.ok(guestOf(it).processes_.has(background.id));
  });
});

describe('a streamed command', () => {
  it('resolves once it has started, and ends with its exit', async () => {
    await using it = await start();
    const { server, ref } = it;
    const events = await server.processes.stream(server.principal, ref, { cmd: 'print a; sleep 20; print b; exit 2', timeoutSeconds: 10 }, never);
    assert.deepEqual(await gather(events), { text: 'ab', exit: 2 });
    await forgotten(it);
  });

  it('fails before it starts as an ordinary error', async () => {
    await using it = await start();
    const { server, ref } = it;
    await assert.rejects(server.processes.stream(server.principal, ref, { cmd: 'x', user: 'nobody-here', timeoutSeconds: 10 }, never), { code: 'invalid_argument' });
  });

  it('throws from the stream at its deadline', async () => {
    await using it = await start();
    const { server, ref } = it;
    const events = await server.processes.stream(server.principal, ref, { cmd: 'print a; sleep 3000', timeoutSeconds: 0.2 }, never);
    await assert.rejects(gather(events), { code: 'deadline_exceeded' });
    await forgotten(it);
  });

  it('is killed at its deadline even when nobody reads', async () => {
    await using it = await start();
    const { server, ref } = it;
    await server.processes.stream(server.principal, ref, { cmd: 'sleep 3000', timeoutSeconds: 0.2 }, never);
    await until('it was killed', () => [...guestOf(it).processes_.values()].every((process) => process.exit !== null));
  });

  it('is killed when the reader leaves the loop', async () => {
    await using it = await start();
    const { server, ref } = it;
    for await (const event of await server.processes.stream(server.principal, ref, { cmd: 'print a; sleep 3000', timeoutSeconds: 0 }, never)) {
      if (event.type === 'stdout') break;
    }
    await forgotten(it);
  });
});

describe('a background command', () => {
  it('is listed with its exact text until it was waited for', async () => {
    await using it = await start();
    const { server, ref } = it;
    const cmd = 'print  x ;  sleep 30';
    const { pid } = await server.processes.startBackground(server.principal, ref, { cmd, timeoutSeconds: 0 }, never);
    const listed = await server.processes.listBackground(server.principal, ref, never);
    assert.deepEqual(listed.map((process) => [process.pid, process.cmd, process.kind]), [[pid, cmd, 'background']]);
    assert.equal((await server.processes.wait(server.principal, ref, pid, never))?.stdout, ' x');
    await forgotten(it);
    assert.deepEqual(await server.processes.listBackground(server.principal, ref, never), []);
    assert.equal(await server.processes.wait(server.principal, ref, pid, never), null);
  });

  it('can be waited for by several at once, of whom some leave', async () => {
    await using it = await start();
    const { server, ref } = it;
    const { pid } = await server.processes.startBackground(server.principal, ref, { cmd: 'print x; sleep 50; exit 4', timeoutSeconds: 0 }, never);
    const leaving = new AbortController();
    const left = server.processes.wait(server.principal, ref, pid, leaving.signal);
    const all = Promise.all([1, 2, 3].map(() => server.processes.wait(server.principal, ref, pid, never)));
    setTimeout(() => leaving.abort(), 10);
    await assert.rejects(left, { code: 'conflict' });
    for (const result of await all) assert.deepEqual(result, { stdout: 'x', stderr: '', exitCode: 4, truncated: false, pid });
  });

  it('goes on when the only one who waits leaves, and can be waited for again', async () => {
    await using it = await start();
    const { server, ref } = it;
    const { pid } = await server.processes.startBackground(server.principal, ref, { cmd: 'sleep 60; print x', timeoutSeconds: 0 }, never);
    await assert.rejects(server.processes.wait(server.principal, ref, pid, AbortSignal.timeout(10)), { code: 'conflict' });
    assert.equal((await server.processes.wait(server.principal, ref, pid, never))?.stdout, 'x');
  });

  it('is killed once: the second time says false, and so does an unknown pid', async () => {
    await using it = await start();
    const { server, ref } = it;
    const { pid } = await server.processes.startBackground(server.principal, ref, { cmd: 'sleep 3000', timeoutSeconds: 0 }, never);
    assert.equal(await server.processes.killByPid(server.principal, ref, pid, never), true);
    assert.equal(await server.processes.killByPid(server.principal, ref, pid, never), false);
    assert.equal(await server.processes.killByPid(server.principal, ref, 999, never), false);
    assert.deepEqual(await server.processes.listBackground(server.principal, ref, never), []);
  });

  it('tells whoever waits when it is killed', async () => {
    await using it = await start();
    const { server, ref } = it;
    const { pid } = await server.processes.startBackground(server.principal, ref, { cmd: 'print x; sleep 3000', timeoutSeconds: 0 }, never);
    const waiting = server.processes.wait(server.principal, ref, pid, never);
    await sleep(10);
    assert.equal(await server.processes.killByPid(server.principal, ref, pid, never), true);
    assert.deepEqual(await waiting, { stdout: 'x', stderr: '', exitCode: 137, truncated: false, pid });
    await forgotten(it);
  });

  it('takes standard input, and an unknown pid is not found', async () => {
    await using it = await start();
    const { server, ref } = it;
    const { pid, id } = await server.processes.startBackground(server.principal, ref, { cmd: 'cat', timeoutSeconds: 0, stdin: true }, never);
    await server.processes.writeStdin(server.principal, ref, pid, Buffer.from('hello'), never);
    await server.processes.closeStdio(server.principal, ref, id, never);
    assert.equal((await server.processes.wait(server.principal, ref, pid, never))?.stdout, 'hello');
    await assert.rejects(server.processes.writeStdin(server.principal, ref, 999, Buffer.from(''), never), {
      code: 'not_found',
      message: 'there is no process 999 in this sandbox; it may have ended, or have been killed or waited for',
    });
  });

  it('is meant by its pid when an older process had the same', async () => {
    await using it = await start();
    const { server, ref } = it;
    const older = await server.processes.startBackground(server.principal, ref, { cmd: 'print old', timeoutSeconds: 0 }, never);
    guestOf(it).reusePid(older.pid);
    await sleep(2);
    const newer = await server.processes.startBackground(server.principal, ref, { cmd: 'print new', timeoutSeconds: 0 }, never);
    assert.equal(newer.pid, older.pid);
    assert.equal((await server.processes.wait(server.principal, ref, older.pid, never))?.stdout, 'new');
    assert.equal((await server.processes.wait(server.principal, ref, older.pid, never))?.stdout, 'old');
  });

  it('is killed at its deadline, and whoever waits later sees it', async () => {
    await using it = await start();
    const { server, ref } = it;
    const { pid } = await server.processes.startBackground(server.principal, ref, { cmd: 'print x; sleep 3000', timeoutSeconds: 0.2 }, never);
    await until('it was killed', async () => (await server.processes.listBackground(server.principal, ref, never))[0]?.running === false);
    assert.deepEqual(await server.processes.wait(server.principal, ref, pid, never), { stdout: 'x', stderr: '', exitCode: 137, truncated: false, pid });
    assert.deepEqual(await server.store.processDeadlines.all(), []);
  });

  it('keeps its deadline over a restart of the server', async () => {
    await using it = await start();
    const { server, ref } = it;
    await server.processes.startBackground(server.principal, ref, { cmd: 'sleep 5000', timeoutSeconds: 60 }, never);
    await server.restart();
    server.clock.offset += 61_000;
    await until('it was killed', async () => (await server.processes.listBackground(server.principal, ref, never))[0]?.running === false);
  });

  it('takes its deadline away when it is waited for, and with its sandbox', async () => {
    await using it = await start();
    const { server, ref } = it;
    const { pid } = await server.processes.startBackground(server.principal, ref, { cmd: 'print x', timeoutSeconds: 60 }, never);
    await server.processes.startBackground(server.principal, ref, { cmd: 'sleep 100', timeoutSeconds: 60 }, never);
    assert.equal((await server.store.processDeadlines.all()).length, 2);
    await server.processes.wait(server.principal, ref, pid, never);
    await until('one is left', async () => (await server.store.processDeadlines.all()).length === 1);
    await server.sandboxes.kill(server.principal, ref);
    await until('none is left', async () => (await server.store.processDeadlines.all()).length === 0);
  });
});

describe('a stdio session', () => {
  it('is replayed to every reader from the entry asked for, also after its end', async () => {
    await using it = await start();
    const { server, ref } = it;
    const { id } = await server.processes.startStdio(server.principal, ref, { cmd: 'print a; cat', timeoutSeconds: 0 }, never);
    await server.processes.writeStdio(server.principal, ref, id, Buffer.from('b'), never);
    await server.processes.closeStdio(server.principal, ref, id, never);
    assert.deepEqual(await gather(await server.processes.stdioOutput(server.principal, ref, id, 0, never)), { text: 'ab', exit: 0 });
    assert.deepEqual(await gather(await server.processes.stdioOutput(server.principal, ref, id, 1, never)), { text: 'b', exit: 0 });
    assert.equal(await server.processes.killStdio(server.principal, ref, id, never), false);
    assert.deepEqual(await gather(await server.processes.stdioOutput(server.principal, ref, id, 0, never)), { text: 'ab', exit: 0 });
  });

  it('gives its exit to readers when it is killed, to late ones too', async () => {
    await using it = await start();
    const { server, ref } = it;
    const { id } = await server.processes.startStdio(server.principal, ref, { cmd: 'print a; cat', timeoutSeconds: 0 }, never);
    const reading = gather(await server.processes.stdioOutput(server.principal, ref, id, 0, never));
    await sleep(10);
    assert.equal(await server.processes.killStdio(server.principal, ref, id, never), true);
    assert.deepEqual(await reading, { text: 'a', exit: 137 });
    assert.deepEqual(await gather(await server.processes.stdioOutput(server.principal, ref, id, 0, never)), { text: 'a', exit: 137 });
    assert.equal(await server.processes.killStdio(server.principal, ref, id, never), false);
  });

  it('is not found by a name that no guest gives', async () => {
    await using it = await start();
    const { server, ref } = it;
    await assert.rejects(server.processes.writeStdio(server.principal, ref, '../p1', Buffer.from(''), never), { code: 'not_found' });
    assert.equal(await server.processes.killStdio(server.principal, ref, 'p1?x=1', never), false);
  });
});

describe('a terminal', () => {
  const pty = { cols: 80, rows: 24, timeoutSeconds: 0 };

  it('gives its first reader everything, and a second one what comes then', async () => {
    await using it = await start();
    const { server, ref } = it;
    const { pid } = await server.processes.startPty(server.principal, ref, pty, never);
    await server.processes.writePty(server.principal, ref, pid, Buffer.from('a'), never);
    await sleep(5);
    const first = gather(await server.processes.ptyOutput(server.principal, ref, pid, never));
    await sleep(5);
    const second = gather(await server.processes.ptyOutput(server.principal, ref, pid, never));
    await sleep(5);
    await server.processes.resizePty(server.principal, ref, pid, { cols: 100, rows: 40 }, never);
    await sleep(5);
    assert.equal(await server.processes.killPty(server.principal, ref, pid, never), true);
    assert.deepEqual(await first, { text: 'a100x40', exit: 137 });
    assert.deepEqual(await second, { text: '100x40', exit: 137 });
    await forgotten(it);
    await assert.rejects(server.processes.ptyOutput(server.principal, ref, pid, never), { code: 'not_found' });
  });

  it('lives on when its reader leaves, and misses nothing until the next one', async () => {
    await using it = await start();
    const { server, ref } = it;
    const { pid } = await server.processes.startPty(server.principal, ref, pty, never);
    const leaving = new AbortController();
    const first = gather(await server.processes.ptyOutput(server.principal, ref, pid, leaving.signal));
    await server.processes.writePty(server.principal, ref, pid, Buffer.from('a'), never);
    await sleep(5);
    leaving.abort();
    await assert.rejects(first, { code: 'conflict' });
    await server.processes.writePty(server.principal, ref, pid, Buffer.from('b'), never);
    await sleep(5);
    const second = gather(await server.processes.ptyOutput(server.principal, ref, pid, never));
    await sleep(5);
    await server.processes.killPty(server.principal, ref, pid, never);
    assert.deepEqual(await second, { text: 'b', exit: 137 });
  });

  it('has a terminal type unless told otherwise', async () => {
    await using it = await start();
    const { server, ref } = it;
    await server.processes.startPty(server.principal, ref, { ...pty, envs: { A: 'b' } }, never);
    const [listed] = await server.processes.listBackground(server.principal, ref, never);
    assert.equal(listed?.kind, 'pty');
    assert.deepEqual(listed.env, { TERM: 'xterm-256color', A: 'b' });
  });

  it('ends at its deadline when nobody is attached', async () => {
    await using it = await start();
    const { server, ref } = it;
    await server.processes.startPty(server.principal, ref, { ...pty, timeoutSeconds: 0.2 }, never);
    await until('it has ended', async () => (await server.processes.listBackground(server.principal, ref, never)).length === 0);
  });

  it('is refused with no size', async () => {
    await using it = await start();
    const { server, ref } = it;
    await assert.rejects(server.processes.startPty(server.principal, ref, { ...pty, cols: 0 }, never), (error: PaddockError) => error.detail.field === 'size.cols');
  });
});
