import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serverOfThisFile, prepare } from '../harness/server.ts';
import { control, exec, make, SocketLog, type Made } from '../harness/superserve.ts';
import { eventually, within } from '../harness/wait.ts';

// The WebSockets of the data plane, frame by frame.

const page = 'https://console.example';
const server = serverOfThisFile({ PADDOCK_SUPERSERVE_TEAM_RATE: '0', PADDOCK_SUPERSERVE_ORIGINS: page });
let box: Made;
prepare(async () => {
  box = await make(server, { name: 'sockets', env_vars: { LAYER: 'create' } });
});

async function connected(path = '/exec/connect', protocol = 'superserve.exec.v1', headers: Readonly<Record<string, string>> = {}): Promise<SocketLog> {
  const log = new SocketLog(server, box, path, protocol, headers);
  await log.opened;
  return log;
}
const ended = (log: SocketLog): Promise<{ code: number; reason: string }> => within(15_000, 'the close', log.closed);

test('the golden session: start, input, its end, output, exit, close', async () => {
  const log = await connected();
  assert.equal(log.protocol, 'superserve.exec.v1');
  log.send({ command: 'cat; exit 7' });
  log.stdin('in');
  log.send({ type: 'stdin_close' });
  assert.deepEqual(await ended(log), { code: 1000, reason: 'command exited' });
  assert.equal(log.channel(1), 'in');
  assert.deepEqual(log.texts, [{ exit_code: 7, finished: true }]);
});

test('both streams have their channel, and directory and environment are those asked for', async () => {
  const log = await connected();
  log.send({ command: 'pwd; echo $LAYER $MINE; echo err >&2', working_dir: '/tmp', env: { MINE: 'mine' } });
  await ended(log);
  assert.deepEqual([log.channel(1), log.channel(2)], ['/tmp\ncreate mine\n', 'err\n']);
});

test('signals reach the process group: those that are allowed, while input waits', async () => {
  const log = await connected();
  log.send({ command: "trap 'echo int' INT; trap 'echo hup; exit 5' HUP; echo ready; while :; do sleep 0.05; done" });
  await eventually(() => log.channel(1).includes('ready'));
  log.send({ type: 'signal', name: 'SIGKILL' });
  log.send({ type: 'nonsense' });
  log.stdin('x'.repeat(2_000_000)); // nobody reads it
  log.send({ type: 'signal', name: 'SIGINT' });
  await eventually(() => log.channel(1).includes('int\n'));
  log.send({ type: 'signal', name: 'SIGHUP' });
  await ended(log);
  assert.deepEqual(log.texts, [{ exit_code: 5, finished: true }]);
});

test('a timeout is 124, and without one nothing ends it', async () => {
  const log = await connected();
  log.send({ command: 'echo a; sleep 100', timeout_s: 1 });
  await ended(log);
  assert.deepEqual([log.channel(1), log.texts], ['a\n', [{ exit_code: 124, finished: true }]]);
});

test('a start that makes no sense or cannot be is told in a frame, then the connection is closed in order', async () => {
  for (const [start, code] of [[{ command: '' }, 'bad_request'], [{ command: 'x', foo: 1 }, 'bad_request'], [[], 'bad_request'], [{ command: 'true', working_dir: '/not/there' }, 'bad_request'], [{ command: 'no-such-program', args: [] }, 'exec_failed']] as const) {
    const log = await connected();
    log.send(start);
    assert.equal((await ended(log)).code, 1000);
    assert.deepEqual([log.texts[0].code, log.texts[0].finished], [code, true]);
    assert.ok(log.texts[0].error.length > 0);
  }
});

test('a binary first frame is 1003, none at all is 1008 after 10 s, one above 4 MiB is 1009', async () => {
  const [binary, silent, large] = await Promise.all([connected(), connected(), connected()]);
  binary.stdin('x');
  large.send({ command: 'cat > /dev/null' });
  large.send(Buffer.alloc(4 * 1024 * 1024 + 1));
  assert.equal((await ended(binary)).code, 1003);
  assert.equal((await ended(large)).code, 1009);
  const { code, reason } = await ended(silent);
  assert.deepEqual([code, reason], [1008, 'the first frame, which starts the command, did not come within 10 s']);
});

test('frames of almost 4 MiB are input, and much output arrives whole', async () => {
  const log = await connected();
  log.send({ command: 'sha256sum; head -c 20000000 /dev/zero' });
  const data = Buffer.alloc(4 * 1024 * 1024 - 1, 'z');
  log.send(Buffer.concat([Buffer.of(0), data]));
  log.send({ type: 'stdin_close' });
  await ended(log);
  assert.equal(log.binary.filter((frame) => frame[0] === 1).reduce((sum, frame) => sum + frame.length - 1, 0), 20_000_000 + 68);
});

test('a connection that is gone ends its process', async () => {
  const log = await connected();
  log.send({ command: 'echo on; exec sleep 4545' });
  await eventually(() => log.channel(1) === 'on\n');
  log.socket.terminate();
  await eventually(async () => (await exec(server, box, 'pgrep -f "slee[p] 4545" | wc -l')).stdout.trim() === '0');
});

test('a bad token, an unknown sandbox and an unknown path are answered in plain HTTP', async () => {
  for (const [made, path, status, code] of [
    [{ ...box, token: '0'.repeat(64) }, '/exec/connect', 401, 'auth_failed'],
    [{ ...box, token: '' }, '/terminal', 401, 'auth_failed'],
    [box, '/nowhere', 404, 'not_found'],
  ] as const) {
    const log = new SocketLog(server, made, path, 'superserve.exec.v1');
    const error: any = await log.opened.then(() => null, (reason: Error) => reason);
    assert.equal(error.status, status);
    assert.equal(JSON.parse(error.message).error.code, code);
  }
});

test('200 processes at once, each with its own connection, and the next one is refused', async () => {
  const logs = await Promise.all(Array.from({ length: 200 }, () => connected()));
  const refused: any = await new SocketLog(server, box, '/exec/connect', 'superserve.exec.v1').opened.then(() => null, (reason: Error) => reason);
  assert.equal(refused.status, 429);
  for (const [i, log] of logs.entries()) {
    log.send({ command: 'read line; echo "$line"' });
    log.stdin(`number ${i}\n`);
  }
  await within(120_000, '200 processes', Promise.all(logs.map((log) => log.closed)));
  assert.deepEqual(logs.map((log) => log.channel(1)), logs.map((_, i) => `number ${i}\n`));
  (await connected()).socket.terminate();
});

test('a terminal: bytes both ways, its size, signals, and a close in order when the shell ends', async () => {
  const log = await connected('/terminal', 'superserve.terminal.v1', { origin: page });
  assert.equal(log.protocol, 'superserve.terminal.v1');
  const screen = (): string => Buffer.concat(log.binary).toString();
  log.send(Buffer.from('stty size; echo $0; echo $LAYER\n'));
  await eventually(() => /24 80\r\n-?\/?(bin\/)?-?bash\r\ncreate\r\n/.test(screen()));
  log.send({ type: 'resize', cols: 120, rows: 40 });
  log.send({ type: 'resize', cols: 0, rows: -1 });
  log.send({ type: 'nonsense' });
  log.send(Buffer.from('stty size\n'));
  await eventually(() => screen().includes('40 120'));
  log.send(Buffer.from('exit\n'));
  assert.deepEqual(await ended(log), { code: 1000, reason: 'the shell has ended' });
});

test('a terminal ends with its connection, and foreign pages do not get one', async () => {
  const log = await connected('/terminal', 'superserve.terminal.v1');
  log.send(Buffer.from('exec sleep 4646\n'));
  await eventually(async () => (await exec(server, box, 'pgrep -f "slee[p] 4646" | wc -l')).stdout.trim() === '1');
  log.socket.terminate();
  await eventually(async () => (await exec(server, box, 'pgrep -f "slee[p] 4646" | wc -l')).stdout.trim() === '0');
  const foreign: any = await new SocketLog(server, box, '/terminal', 'superserve.terminal.v1', { origin: 'https://evil.example' }).opened.then(() => null, (reason: Error) => reason);
  assert.equal(foreign.status, 400);
});

test('a sandbox that is deleted tells its sessions', async () => {
  const other = await make(server);
  const log = new SocketLog(server, other, '/exec/connect', 'superserve.exec.v1');
  await log.opened;
  log.send({ command: 'echo on; sleep 100' });
  await eventually(() => log.channel(1) === 'on\n');
  await control(server, 'DELETE', `/sandboxes/${other.id}`);
  // No frame that says finished: the SDK would take it for exit code 0.
  const { code, reason } = await ended(log);
  assert.equal(code, 1011);
  assert.match(reason, /^the sandbox has ended: it was killed/);
  assert.deepEqual(log.texts, []);
  const after: any = await new SocketLog(server, other, '/exec/connect', 'superserve.exec.v1').opened.then(() => null, (reason: Error) => reason);
  assert.deepEqual([after.status, JSON.parse(after.message).error.code], [404, 'sandbox_route_stale']);
});

test('a server that stops says goodbye', async () => {
  const log = await connected();
  log.send({ command: 'echo on; sleep 100' });
  await eventually(() => log.channel(1) === 'on\n');
  await server.stop();
  assert.equal((await ended(log)).code, 1001);
  await server.start();
});
