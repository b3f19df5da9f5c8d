import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CommandExitError, InvalidArgumentError, TimeoutError } from '@declaw/sdk';
import { output, sandboxOfThisFile } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually, within } from '../harness/wait.ts';

const server = serverOfThisFile();
const sandbox = sandboxOfThisFile({ envs: { LAYER: 'sandbox', KEPT: 'yes' } });
const post = (path: string, json: unknown) => server.call('POST', `/sandboxes/${sandbox().sandboxId}/commands${path}`, { json });

/** Whether a process with this text in its arguments runs in the sandbox. The bracket keeps the search from finding itself. */
async function runs(text: string): Promise<boolean> {
  return (await sandbox().commands.run(`ps -eo args | grep -q '[${text[0]}]${text.slice(1)}'`, { user: 'root' })).exitCode === 0;
}

test('a command gives its output streams and its exit code, whatever that is', async () => {
  assert.deepEqual(await sandbox().commands.run('echo out; echo err >&2; exit 42'), { stdout: 'out\n', stderr: 'err\n', exitCode: 42 });
  assert.deepEqual(await sandbox().commands.run('true'), { stdout: '', stderr: '', exitCode: 0 });
  assert.equal((await sandbox().commands.run('no-such-program')).exitCode, 127);
  assert.equal((await sandbox().commands.run('kill -TERM $$')).exitCode, 143);
  const raw = await post('', { cmd: 'exit 3' });
  assert.deepEqual([raw.status, raw.json.stdout, raw.json.stderr, raw.json.exit_code], [200, '', '', 3]);
});

test('a command line may use pipes, variables, quotes and many lines', async () => {
  assert.equal(await output(sandbox(), 'echo "a b" | tr a-z A-Z && X=1; echo "$X"'), 'A B\n1\n');
  assert.equal(await output(sandbox(), 'for i in 1 2 3; do\n  echo "line $i"\ndone\ncat <<EOF\nhere\nEOF\n'), 'line 1\nline 2\nline 3\nhere\n');
  assert.equal(await output(sandbox(), 'echo $BASH_VERSION | grep -c .'), '1\n');
});

test('commands start in the home directory of their user, or in cwd', async () => {
  assert.equal(await output(sandbox(), 'pwd; id -un; id -u'), '/home/user\nuser\n1000\n');
  assert.equal(await output(sandbox(), 'pwd; id -un; id -u', { user: 'root' }), '/root\nroot\n0\n');
  assert.equal(await output(sandbox(), 'pwd', { cwd: '/usr/lib' }), '/usr/lib\n');
  await sandbox().files.makeDir('/home/user/project');
  assert.equal(await output(sandbox(), 'pwd', { cwd: 'project' }), '/home/user/project\n');
});

test('an unknown user and a missing directory are 400 that name them', async () => {
  await assert.rejects(sandbox().commands.run('true', { user: 'nobody-here' }), (error) => error instanceof InvalidArgumentError && /nobody-here/.test(error.message));
  await assert.rejects(sandbox().commands.run('true', { cwd: '/not/there' }), (error) => error instanceof InvalidArgumentError && /\/not\/there/.test(error.message));
});

test('the user may become root with sudo, without a password, keeping exit code, directory and streams', async () => {
  assert.equal(await output(sandbox(), 'sudo id -u'), '0\n');
  assert.equal(await output(sandbox(), 'cd /tmp && sudo -n pwd'), '/tmp\n');
  assert.equal(await output(sandbox(), 'echo through | sudo cat'), 'through\n');
  assert.equal((await sandbox().commands.run('sudo sh -c "echo broken >&2; exit 7"')).exitCode, 7);
  assert.equal(await output(sandbox(), 'sudo touch /etc/made-by-root && stat -c %U /etc/made-by-root'), 'root\n');
});

test('envs of a command lie over those of the sandbox, which lie over the template\'s', async () => {
  assert.equal(await output(sandbox(), 'echo $LAYER $KEPT $LANG'), 'sandbox yes C.UTF-8\n');
  assert.equal(await output(sandbox(), 'echo $LAYER $KEPT "$QUOTED"', { envs: { LAYER: 'command', QUOTED: 'a "b" $c' } }), 'command yes a "b" $c\n');
  assert.equal(await output(sandbox(), 'echo $LAYER'), 'sandbox\n');
});

test('a command that runs out of time is 408 with what it said, and its whole process group is gone', async () => {
  const command = 'echo before; sleep 4711 & echo complaint >&2; sleep 4712';
  await assert.rejects(sandbox().commands.run(command, { timeout: 1 }), (error) => {
    assert.ok(error instanceof TimeoutError);
    assert.match(error.message, /HTTP 408: .*1 s/);
    assert.match(error.message, /before/);
    assert.match(error.message, /complaint/);
    return true;
  });
  assert.equal(await runs('sleep 4711'), false);
  assert.equal(await runs('sleep 4712'), false);
});

test('a command that ignores signals and closes its output still ends at its timeout', async () => {
  const answer = await within(20_000, 'a stubborn command', post('', { cmd: 'trap "" TERM INT HUP; exec >/dev/null 2>&1; sleep 4713', timeout: 1 }));
  assert.equal(answer.status, 408);
  assert.equal(await runs('sleep 4713'), false);
});

test('timeout 0 sets no limit, and fractions of a second count', async () => {
  assert.equal((await post('', { cmd: 'sleep 0.2; echo done', timeout: 0 })).json.stdout, 'done\n');
  assert.equal((await post('', { cmd: 'sleep 30', timeout: 0.3 })).status, 408);
});

test('a server started with & does not keep the call, and stays alive', async () => {
  const { stdout } = await within(15_000, 'a command that leaves a child behind', sandbox().commands.run('sleep 4721 & echo started'));
  assert.equal(stdout, 'started\n');
  assert.equal(await runs('sleep 4721'), true);
});

test('standard input of a foreground command is empty, so that nothing waits for it', async () => {
  assert.deepEqual(await within(15_000, 'cat without input', sandbox().commands.run('cat; read x || echo end')), { stdout: 'end\n', stderr: '', exitCode: 0 });
});

test('text of every kind survives, and bytes that are no text become U+FFFD in valid JSON', async () => {
  assert.equal(await output(sandbox(), `printf '%s' "grüße 日本 🦊 \u0001 \\"q\\" \\\\ 'x'"`.replace(`'x'`, 'x')), 'grüße 日本 🦊 \u0001 "q" \\ x');
  assert.equal(await output(sandbox(), `printf 'a\\0b\\r\\nc'`), 'a\0b\r\nc');
  const raw = await post('', { cmd: `printf 'A\\xff\\xfeB'` });
  assert.equal(raw.json.stdout, 'A\ufffd\ufffdB');
});

test('a script of 100 KB runs, one beyond what Linux takes is refused with the limit', async () => {
  const filler = `# ${'x'.repeat(98)}\n`.repeat(1000);
  assert.equal(await output(sandbox(), `${filler}echo end`), 'end\n');
  const refused = await post('', { cmd: `${filler}${filler}echo end` });
  assert.ok(refused.status === 400 || refused.status === 413, `status ${refused.status}`);
  assert.match(refused.json.message, /131,?071|128 KiB/);
});

test('a NUL in a command, a directory or a variable is refused, not cut off', async () => {
  for (const json of [{ cmd: 'echo a\0b' }, { cmd: 'true', cwd: '/tmp\0' }, { cmd: 'true', envs: { A: 'b\0c' } }, { cmd: 'true', envs: { 'A=B': 'c' } }]) {
    assert.equal((await post('', json)).status, 400, JSON.stringify(json));
  }
});

test('a flood of output is bounded, flagged, and the command goes to its end', async () => {
  const answer = await within(60_000, 'a flood', post('', { cmd: 'yes 0123456789 | head -c 100000000; echo flood-end >&2; exit 5', timeout: 60 }));
  assert.equal(answer.status, 200);
  assert.equal(answer.json.exit_code, 5);
  assert.match(answer.json.stderr, /flood-end/);
  assert.ok(answer.json.stdout.length > 1_000_000 && answer.json.stdout.length < 17_000_000, `${answer.json.stdout.length} characters kept`);
  assert.match(JSON.stringify({ ...answer.json, stdout: answer.json.stdout.slice(0, 300) + answer.json.stdout.slice(-300) }), /truncated/i);
});

test('a background command is listed with its exact text, waited for once, and then gone', async () => {
  const cmd = 'echo "from behind"; sleep 1; echo late >&2';
  const handle = await sandbox().commands.run(cmd, { background: true, envs: { JOB: 'one' } });
  assert.ok(Number.isInteger(handle.pid) && handle.pid > 0);
  const listed = (await sandbox().commands.list()).find((each) => each.pid === handle.pid);
  assert.deepEqual(listed, { pid: handle.pid, cmd, isPty: false, envs: { JOB: 'one' } });
  assert.deepEqual(await handle.wait(), { stdout: 'from behind\n', stderr: 'late\n', exitCode: 0 });
  assert.ok((await sandbox().commands.list()).every((each) => each.pid !== handle.pid));
});

test('a background command that has long ended keeps its output for whoever waits', async () => {
  const handle = await sandbox().commands.run('echo early; exit 9', { background: true });
  await eventually(async () => !(await runs('echo early')));
  await assert.rejects(handle.wait(), (error) => {
    assert.ok(error instanceof CommandExitError);
    assert.deepEqual([error.exitCode, error.stdout, error.stderr], [9, 'early\n', '']);
    return true;
  });
});

test('a background command can be killed with its children, once', async () => {
  const handle = await sandbox().commands.run('sleep 4731 & sleep 4732', { background: true });
  await eventually(() => runs('sleep 4732'));
  assert.equal(await handle.kill(), true);
  assert.equal(await handle.kill(), false);
  await eventually(async () => !(await runs('sleep 4731')) && !(await runs('sleep 4732')));
  assert.ok((await sandbox().commands.list()).every((each) => each.pid !== handle.pid));
});

test('a background command takes input at any time', async () => {
  const handle = await sandbox().commands.run('read a; read b; echo "$a+$b"', { background: true });
  await sandbox().commands.sendStdin(handle.pid, 'erste\n');
  await sandbox().commands.sendStdin(handle.pid, 'zweite 🦊\n');
  assert.equal((await handle.wait()).stdout, 'erste+zweite 🦊\n');
});

test('the time of a background command is counted too', async () => {
  const handle = await sandbox().commands.run('sleep 4741', { background: true, timeout: 1 });
  await eventually(async () => !(await runs('sleep 4741')));
  await assert.rejects(handle.wait(), (error) => error instanceof CommandExitError || error instanceof TimeoutError);
});

test('a process that nobody knows is answered as the contract says', async () => {
  const { status, json } = await server.call('GET', `/sandboxes/${sandbox().sandboxId}/commands/999999/wait`);
  assert.deepEqual([status, json], [200, { stdout: '', stderr: 'process not found', exit_code: 1 }]);
  assert.equal(await sandbox().commands.kill(999_999), false);
  assert.equal((await post('/999999/stdin', { data: 'x' })).status, 404);
  for (const path of ['abc/wait', '-1/wait', '1.5/wait']) {
    assert.equal((await server.call('GET', `/sandboxes/${sandbox().sandboxId}/commands/${path}`)).status, 400, path);
  }
});

test('twenty commands at once keep their output apart', async () => {
  const results = await Promise.all(Array.from({ length: 20 }, (_, i) => sandbox().commands.run(`for n in 1 2 3; do echo ${i}; sleep 0.05; done`)));
  assert.deepEqual(results.map((each) => each.stdout), Array.from({ length: 20 }, (_, i) => `${i}\n`.repeat(3)));
});
