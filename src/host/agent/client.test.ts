import assert from 'node:assert/strict';
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../../core/errors.ts';
import type { GuestIdentity, OutputEvent, ProcessSpec } from '../../core/host.ts';
import type { SandboxId } from '../../core/ids.ts';
import type { Limits } from '../../core/template.ts';
import { readAll } from './answer.ts';
import { AgentClient } from './client.ts';
import { SmallAgent, refuse } from './testing/small-agent.ts';

const never = new AbortController().signal;
const command: ProcessSpec = { cmd: 'true', kind: 'command', stdin: false };
const gone = new PaddockError('gone', 'it has ended');

/** Reads in the background; `text` is what came so far. */
class Reader {
  text = '';
  readonly entries: number[] = [];
  readonly done: Promise<void>;

  constructor(events: AsyncIterable<OutputEvent>) {
    this.done = this.#read(events);
    this.done.catch(() => {});
  }

  async until(text: string): Promise<void> {
    await eventually(() => this.text === text, `"${text}", but it is "${this.text}"`);
  }

  async #read(events: AsyncIterable<OutputEvent>): Promise<void> {
    for await (const event of events) {
      if ('entry' in event) this.entries.push(event.entry);
      if ('data' in event) this.text += event.data.toString();
    }
  }
}

async function eventually(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    if (condition()) return;
    await sleep(5);
  }
  assert.fail(`never: ${what}`);
}

function clientOf(agent: SmallAgent, isAlive = () => true): AgentClient & Disposable {
  const client = new AgentClient(agent.address, 'token-of-the-tests', isAlive);
  return Object.assign(client, { [Symbol.dispose]: () => client.end(gone) });
}

function identity(token: string): GuestIdentity {
  return { sandboxId: 's2' as SandboxId, hostname: 'sbx-2', agentToken: token, defaultUser: 'user', sudo: true, env: {} };
}

const limits = { pids: 10, memoryMb: 64 } as Limits;

test('output goes on after a broken connection, in order, with nothing lost and nothing twice', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  agent.say('1 ');
  const readers = [new Reader(client.run(command, never)), new Reader(client.output('p1', 1, true, never))];
  await eventually(() => agent.followers === 2, 'both follow');
  for (let i = 2; i <= 20; i++) {
    agent.say(`${i} `);
    if (i % 5 === 0) {
      agent.stammer();
      await sleep(i);
      agent.cut();
      agent.say('while nobody listens ');
    }
    if (i === 10) {
      await agent.stop();
      await sleep(300);
      await agent.listen();
    }
    await sleep(1);
  }
  agent.exit();
  await Promise.all(readers.map((reader) => reader.done));
  const numbers = Array.from({ length: 25 } /* 20, 4 and the exit */, (_, i) => i + 1);
  assert.deepEqual(readers[0]!.entries, numbers);
  assert.deepEqual(readers[1]!.entries, numbers.slice(1));
  assert.equal(readers[0]!.text, `1 ${readers[1]!.text}`);
  assert.equal(agent.requests.filter((request) => request.startsWith('POST')).length, 1, 'the command ran once');
});

test('a connection that breaks before the process has a name is an error', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  agent.answers.set('POST /v1/start-and-follow', (_request, response) => {
    response.write(Buffer.from([7]), () => agent.cut());
  });
  await assert.rejects(new Reader(client.run(command, never)).done, { code: 'unprocessable', message: /^the connection into the sandbox broke before the answer/ });
});

test('neither an error answer nor a breach of the protocol is a broken connection', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  const reader = new Reader(client.output('p1', 0, true, never));
  await eventually(() => agent.followers === 1, 'it follows');
  agent.answers.set('GET /v1/processes/p1/output', (_request, response) => refuse(response, 404, 'not_found'));
  agent.cut();
  await assert.rejects(reader.done, { code: 'not_found' });
  agent.answers.set('GET /v1/processes/p1/output', (_request, response) => response.end('half a frame'));
  await assert.rejects(new Reader(client.output('p1', 0, true, never)).done, { name: 'AgentProtocolError' });
  await agent.stop();
  await assert.rejects(new Reader(client.output('p1', 0, true, never)).done, { code: 'guest_unreachable' });
});

test('nobody is tried again whose guest is dead, whose client has ended, or who has left', async () => {
  await using agent = await SmallAgent.open();
  let alive = true;
  using client = clientOf(agent, () => alive);
  const leaving = new AbortController();
  const left = new Reader(client.output('p1', 0, true, leaving.signal));
  const ended = clientOf(agent);
  const end = new Reader(ended.output('p1', 0, true, never));
  await eventually(() => agent.followers === 2, 'both follow');
  await agent.stop();
  await sleep(50);
  leaving.abort(new PaddockError('deadline_exceeded', 'no more time'));
  await assert.rejects(left.done, { code: 'deadline_exceeded' });
  ended.end(gone);
  await assert.rejects(end.done, gone);
  await agent.listen();
  const widow = new Reader(client.output('p1', 0, true, never));
  await eventually(() => agent.followers === 1, 'it follows');
  alive = false;
  agent.cut();
  await assert.rejects(widow.done, { code: 'gone' });
});

test('a hold leaves no connection, and a release lets everything go on', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  const run = new Reader(client.run(command, never));
  const output = new Reader(client.output('p1', 0, true, never));
  await client.processes(never);
  agent.say('before ');
  await Promise.all([run.until('before '), output.until('before ')]);

  await client.hold(100);
  await eventually(() => agent.connections === 0, 'no connection is open');
  const asked = agent.requests.length;
  agent.say('meanwhile ');
  const late = new Reader(client.output('p1', 1, true, never));
  const processes = client.processes(never);
  await sleep(100);
  assert.equal(agent.requests.length, asked, 'nobody asks while it is held');
  assert.equal(agent.connections, 0);
  await client.untilListening(never);
  await eventually(() => agent.connections === 0, 'the host has asked, and hung up');

  client.release();
  assert.deepEqual(await processes, []);
  agent.say('after');
  agent.exit();
  await Promise.all([run.done, output.done, late.done]);
  assert.deepEqual([run.text, output.text, late.text], ['before meanwhile after', 'before meanwhile after', 'meanwhile after']);
  assert.deepEqual(run.entries, [1, 2, 3, 4]);
  client.release(); // once more changes nothing
});

test('a slow reader still gets what had arrived before a hold', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  const numbers: number[] = [];
  const events = client.output('p1', 0, true, never);
  agent.say('1');
  await events.next();
  for (let i = 2; i <= 20; i++) agent.say('x'.repeat(50_000));
  await eventually(() => agent.unsent === 0, 'all of it is on the way');
  await client.hold(50);
  client.release();
  agent.exit();
  for await (const event of events) if ('entry' in event) numbers.push(event.entry);
  assert.deepEqual(numbers, Array.from({ length: 20 }, (_, i) => i + 2));
  const again = Number(/after=(\d+)/.exec(agent.requests.at(-1)!)?.[1]);
  assert.ok(again > 5, `asked again from ${again} on: an agent keeps only so much`);
});

test('a hold waits for calls under way, and asks again what it had to cut', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  let answer = (): void => {};
  agent.answers.set('GET /v1/processes', (_request, response) => (answer = () => response.end('{"processes":[]}')));
  agent.answers.set('POST /v1/processes/p1/signal', () => {});
  const asked = (n: number): Promise<void> => eventually(() => agent.requests.filter((request) => request.startsWith('GET /v1/processes ')).length === n, `asked ${n} times`);

  const first = client.processes(never);
  await asked(1);
  const held = client.hold(60_000);
  await sleep(20);
  answer();
  assert.deepEqual(await first, []);
  await held;
  client.release();

  const second = client.processes(never);
  // Whether it was delivered is not known, so it is not asked for twice.
  const signal = assert.rejects(client.sendSignal('p1', 'SIGTERM', never), { code: 'unprocessable', message: /being saved/ });
  await asked(2);
  await eventually(() => agent.requests.some((request) => request.includes('signal')), 'the signal is asked for');
  const began = performance.now();
  await client.hold(50);
  assert.ok(performance.now() - began < 5_000);
  await signal;
  client.release();
  await asked(3);
  answer();
  assert.deepEqual(await second, []);
  assert.equal(agent.requests.filter((request) => request.includes('signal')).length, 1);
});

test('a part of a file is asked for in the words of HTTP, and one that fits its size is believed', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  let said = '';
  agent.answers.set('GET /v1/files', (request, response) => {
    assert.equal(request.headers.range, 'bytes=2-4');
    response.writeHead(206, { 'content-range': said, 'content-length': 3 }).end('234');
  });
  said = 'bytes 2-4/10';
  const { size, body, part } = await client.files.read('/a', undefined, never, 'bytes=2-4');
  assert.deepEqual([size, part, String(await body.toArray())], [3, { first: 2, last: 4, total: 10 }, '234']);
  for (said of ['', 'bytes 2-5/10', 'bytes 2-4/4', 'bytes 2-4/*']) await assert.rejects(client.files.read('/a', undefined, never, 'bytes=2-4'), /a part of a file that says wrongly which/, said);
});

test('a hold breaks file transfers and tunnels off, and says why', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  agent.answers.set('GET /v1/files', (_request, response) => {
    response.setHeader('content-length', 1000);
    response.write('the beginning');
  });
  agent.answers.set('PUT /v1/files', () => {});
  const { body } = await client.files.read('/big', undefined, never);
  const source = new PassThrough();
  source.write('a part');
  const upload = client.files.write('/big', undefined, source, never);
  const tunnel = await client.tunnel(80, never);
  tunnel.write('echo');
  assert.equal(String((await once(tunnel, 'data'))[0]), 'echo');
  await eventually(() => agent.requests.some((request) => request.startsWith('PUT')), 'the upload has begun');

  const broken = { code: 'conflict', message: /^the sandbox is being saved \(paused or snapshotted\)/ };
  const ends = Promise.all([
    assert.rejects(async () => {
      for await (const _ of body);
    }, broken),
    assert.rejects(upload, broken),
    assert.rejects(once(tunnel, 'nothing'), broken),
  ]);
  await client.hold(50);
  await ends;
  await eventually(() => agent.connections === 0, 'no connection is open');
  const waiting = client.tunnel(80, never);
  await sleep(20);
  client.release();
  (await waiting).destroy();
});

test('who waits while the client is held can leave, hears of its end, and loses no time', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  const follower = new Reader(client.output('p1', 0, true, never));
  await eventually(() => agent.followers === 1, 'it follows');
  await client.hold(50);
  const leaving = new AbortController();
  const left = [client.processes(leaving.signal), new Reader(client.output('p1', 0, true, leaving.signal)).done, client.tunnel(80, leaving.signal)];
  const patient = client.request({ method: 'GET', path: '/v1/health', deadlineMs: 40 });
  await sleep(80);
  leaving.abort(new PaddockError('deadline_exceeded', 'no more time'));
  await Promise.all(left.map((one) => assert.rejects(one, { code: 'deadline_exceeded' })));
  client.release();
  assert.match(await readAll((await patient).body, 1000), /"protocol":2/);
  await eventually(() => agent.followers === 1, 'it follows again');

  await client.hold(50);
  const waiting = [client.processes(never), follower.done, new Reader(client.run(command, never)).done];
  const asked = agent.requests.length;
  await sleep(20);
  client.end(gone);
  await Promise.all(waiting.map((one) => assert.rejects(one, gone)));
  await assert.rejects(client.hold(50), gone);
  assert.equal(agent.requests.length, asked);
});

test('a hold that is released or ended before it is complete says so', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  agent.answers.set('GET /v1/processes', () => {});
  const call = client.processes(never);
  call.catch(() => {});
  await eventually(() => agent.requests.length === 1, 'a call is under way');
  const released = client.hold(50);
  client.release();
  await assert.rejects(released, { code: 'conflict' });
  const ended = client.hold(60_000);
  client.end(gone);
  await assert.rejects(ended, gone);
});

test('a guest whose agent does not know holds is held all the same', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  agent.answers.set('POST /v1/hold', (_request, response) => refuse(response, 404, 'not_found'));
  const reader = new Reader(client.run(command, never));
  agent.say('one ');
  await reader.until('one ');
  await client.hold(50);
  await eventually(() => agent.connections === 0, 'no connection is open');
  agent.say('two');
  client.release();
  agent.exit();
  await reader.done;
  assert.equal(reader.text, 'one two');
});

test('a new identity is asked for with the token of before, and the new one counts afterwards', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  let sent: unknown;
  agent.answers.set('POST /v1/identity', (_request, response, body) => {
    sent = JSON.parse(body);
    response.end('{"protocol":2}');
  });
  await client.hold(50);
  await client.reidentify(identity('another-token'), '', Buffer.from('random'), limits, never);
  client.release();
  await client.processes(never);
  assert.deepEqual(agent.requests.slice(1), ['POST /v1/identity token-of-the-tests', 'GET /v1/processes another-token']);
  assert.deepEqual(sent, {
    sandbox_id: 's2', token: 'another-token', hostname: 'sbx-2', machine_id: '', entropy: 'cmFuZG9t', default_user: 'user', sudo: true, env: {},
    ca_certificate: '', nameservers: ['8.8.8.8'], limits: { pids: 10, memory_bytes: 64 * 1024 * 1024 },
  });
});

test('when the answer about a new identity is lost, both tokens are tried', async () => {
  for (const { took, cuts, tokens } of [
    { took: true, cuts: 1, tokens: ['token-of-the-tests', 'another-token'] },
    { took: false, cuts: 1, tokens: ['token-of-the-tests', 'another-token', 'token-of-the-tests'] },
    { took: false, cuts: 2, tokens: ['token-of-the-tests', 'another-token', 'token-of-the-tests'] },
  ]) {
    await using agent = await SmallAgent.open();
    using client = clientOf(agent);
    let token = 'token-of-the-tests';
    let asked = 0;
    agent.answers.set('POST /v1/identity', (request, response) => {
      const right = request.headers.authorization === `Bearer ${token}`;
      if (right && (asked > 0 || took)) token = 'another-token';
      if (++asked <= cuts) agent.cut();
      else if (right) response.end('{"protocol":2}');
      else refuse(response, 401, 'unauthorized');
    });
    await client.reidentify(identity('another-token'), '', new Uint8Array(), limits, never);
    assert.deepEqual(agent.requests, tokens.map((one) => `POST /v1/identity ${one}`));
    await client.processes(never);
    assert.equal(agent.requests.at(-1), 'GET /v1/processes another-token');
  }
});

test('a new identity that is refused leaves the token as it was', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  for (const [status, code, expected] of [[401, 'unauthorized', 'unprocessable'], [400, 'user_not_found', 'invalid_argument'], [404, 'not_found', 'not_found']] as const) {
    agent.answers.set('POST /v1/identity', (_request, response) => refuse(response, status, code));
    await assert.rejects(client.reidentify(identity('another-token'), '', new Uint8Array(), limits, never), { code: expected });
  }
  await client.processes(never);
  assert.deepEqual(agent.requests.at(-1), 'GET /v1/processes token-of-the-tests');
  assert.equal(agent.requests.length, 4);
});

test('the current version of the protocol and the one before it are spoken', async () => {
  await using agent = await SmallAgent.open();
  using client = clientOf(agent);
  for (const version of [1, 2]) {
    agent.answers.set('GET /v1/health', (_request, response) => response.end(JSON.stringify({ protocol: version })));
    agent.answers.set('POST /v1/claim', (_request, response) => response.end(JSON.stringify({ protocol: version })));
    await client.untilListening(never);
    await client.claim(identity('token-of-the-tests'), '', new Uint8Array(), limits, never);
  }
  agent.answers.set('GET /v1/health', (_request, response) => response.end('{"protocol":3}'));
  await assert.rejects(client.untilListening(never), { name: 'AgentProtocolError', message: /version 3$/ });
});
