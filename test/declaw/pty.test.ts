import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PtyHandle } from '@declaw/sdk';
import { sandboxOfThisFile } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually, sleep, within } from '../harness/wait.ts';

const server = serverOfThisFile();
const sandbox = sandboxOfThisFile({ envs: { FROM: 'sandbox' } });

/** What one reader of a terminal has seen so far. */
class Screen {
  text = '';
  readonly onData = (data: Uint8Array): void => {
    this.text += Buffer.from(data).toString('utf8');
  };

  async shows(what: string | RegExp): Promise<void> {
    await eventually(() => (typeof what === 'string' ? this.text.includes(what) : what.test(this.text))).catch((cause: unknown) => {
      throw new Error(`${what} does not appear in: ${JSON.stringify(this.text.slice(-2000))}`, { cause });
    });
  }
}

test('a terminal is a login shell of the user, of the size asked for', async () => {
  const screen = new Screen();
  const pty = await sandbox().pty.create({ size: { cols: 100, rows: 30 }, cwd: '/tmp', envs: { MINE: 'too' }, onData: screen.onData });
  assert.ok(Number.isInteger(pty.pid) && pty.pid > 0);
  await pty.sendInput('echo "<$(id -un)|$(pwd)|$TERM|$FROM|$MINE|$(stty size)|$0>"\n');
  await screen.shows('<user|/tmp|xterm-256color|sandbox|too|30 100|');
  await screen.shows(/\|-?(\/bin\/)?bash>/);
  await pty.sendInput('test -t 0 && test -t 1 && test -t 2 && echo it is a ter""minal\n');
  await screen.shows('it is a terminal');
  await pty.sendInput('exit 3\n');
  assert.deepEqual(await within(10_000, 'exit', pty.wait()), { exitCode: 3 });
});

test('without options it has 80 columns and 24 rows; resizing tells the program', async () => {
  const screen = new Screen();
  const pty = await sandbox().pty.create({ onData: screen.onData });
  await pty.sendInput(`stty size; bash -c 'trap "echo now \\$(stty size)" WINCH; while :; do sleep 0.1; done'\n`);
  await screen.shows('24 80');
  await sleep(500);
  await pty.resize({ cols: 132, rows: 50 });
  await screen.shows('now 50 132');
  assert.equal(await pty.kill(), true);
});

test('Ctrl-C interrupts what runs, Ctrl-D ends the shell', async () => {
  const screen = new Screen();
  const pty = await sandbox().pty.create({ onData: screen.onData });
  await pty.sendInput('echo rea""dy; sleep 5011\n');
  await screen.shows('ready');
  await sleep(200);
  await pty.sendInput('\x03');
  await pty.sendInput('echo co""de $?\n');
  await screen.shows('code 130');
  await pty.sendInput('\x04');
  assert.equal((await within(10_000, 'the end after Ctrl-D', pty.wait())).exitCode, 0);
});

test('what came before the first reader is kept for it', async () => {
  const pty = await sandbox().pty.create();
  await pty.sendInput('echo ear""ly\n');
  await sleep(1000);
  const screen = new Screen();
  const reader = sandbox().pty.connect(pty.pid, { onData: screen.onData });
  await screen.shows('early');
  await reader.kill();
});

test('several readers see the same, each from when it came; one that leaves harms nobody', async () => {
  const [first, second, third] = [new Screen(), new Screen(), new Screen()];
  const pty = await sandbox().pty.create({ onData: first.onData });
  await pty.sendInput('echo for o""ne\n');
  await first.shows('for one');
  const leaver = sandbox().pty.connect(pty.pid, { onData: second.onData });
  await sleep(300);
  await pty.sendInput('echo for t""wo\n');
  await Promise.all([first.shows('for two'), second.shows('for two')]);
  assert.ok(!second.text.includes('for one'), 'a later reader got old output');
  leaver.disconnect();
  await pty.sendInput('echo bet""ween\n');
  await first.shows('between');
  const stayer = sandbox().pty.connect(pty.pid, { onData: third.onData });
  await sleep(300);
  await pty.sendInput('echo for thr""ee; exit 9\n');
  await Promise.all([first.shows('for three'), third.shows('for three')]);
  const ends = await within(10_000, 'both readers', Promise.all([pty.wait(), stayer.wait()]));
  assert.deepEqual(ends, [{ exitCode: 9 }, { exitCode: 9 }]);
});

test('text of any script and full-screen control sequences go through unchanged', async () => {
  const screen = new Screen();
  const pty = await sandbox().pty.create({ onData: screen.onData });
  await pty.sendInput(`printf '\\033[2J\\033[1;31m%s\\033[0m%s\\n' "ro""t" "日""本🦊"\n`);
  await screen.shows('\u001b[2J\u001b[1;31mrot\u001b[0m日本🦊');
  await pty.sendInput(new TextEncoder().encode('echo "gr""ü""ße"\n'));
  await screen.shows('grüße');
  await pty.kill();
});

test('a terminal ends at its time limit, also when nobody is attached', async () => {
  const ps = async (): Promise<string> => (await sandbox().commands.run('ps -eo args')).stdout;
  const pty = await sandbox().pty.create({ timeout: 2 });
  await pty.sendInput('exec sleep 5021\n');
  await eventually(async () => (await ps()).includes('sleep 5021'));
  await eventually(async () => !(await ps()).includes('sleep 5021'), { withinMs: 6000 });
  assert.equal(await pty.kill(), false);
});

test('killing a terminal ends its programs, once', async () => {
  const screen = new Screen();
  const pty: PtyHandle = await sandbox().pty.create({ onData: screen.onData });
  await pty.sendInput('sleep 5031 & echo sta""rted\n');
  await screen.shows('started');
  assert.equal(await sandbox().pty.kill(pty.pid), true);
  assert.equal(await sandbox().pty.kill(pty.pid), false);
  const { exitCode } = await within(10_000, 'the reader of a killed terminal', pty.wait());
  assert.notEqual(exitCode, 0);
});

test('terminals nobody knows are 404 or false, sizes that cannot be are 400', async () => {
  const root = `/sandboxes/${sandbox().sandboxId}/pty`;
  assert.equal((await server.call('GET', `${root}/999999/stream`)).status, 404);
  assert.equal((await server.call('POST', `${root}/999999/stdin`, { json: { data: 'x' } })).status, 404);
  assert.equal((await server.call('PATCH', `${root}/999999`, { json: { size: { cols: 80, rows: 24 } } })).status, 404);
  assert.equal((await server.call('GET', `${root}/abc/stream`)).status, 400);
  for (const size of [{ cols: 0, rows: 24 }, { cols: 80 }, { cols: 1e9, rows: 1 }, { cols: '80', rows: 24 }]) {
    assert.equal((await server.call('POST', root, { json: { size } })).status, 400, JSON.stringify(size));
  }
});

test('thirty thousand lines scroll by without loss', async () => {
  const screen = new Screen();
  const pty = await sandbox().pty.create({ onData: screen.onData });
  await pty.sendInput('stty -echo; PS1=; echo; seq 1 30000; echo all do""ne; exit\n');
  await within(60_000, 'the end of a long scroll', pty.wait());
  const numbers = screen.text.split('\r\n').filter((line) => /^\d+$/.test(line));
  assert.equal(numbers.length, 30_000);
  assert.equal(numbers.at(-1), '30000');
});
