import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';
import { after, before, beforeEach, test } from 'node:test';
import { HttpScorer, type HttpScorerOptions } from './http-scorer.ts';

let server: Server;
let answer: (request: IncomingMessage, response: ServerResponse, body: string) => void;
let connections: number;

before(async () => {
  server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (part: string) => (body += part));
    request.on('end', () => answer(request, response, body));
  });
  server.on('connection', () => connections++);
  await once(server.listen(0, '127.0.0.1'), 'listening');
});
beforeEach(() => {
  connections = 0;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

function scorer(t: { after(fn: () => Promise<void>): void }, options: Partial<HttpScorerOptions> = {}): HttpScorer {
  const made = new HttpScorer({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/score?model=a`, deadlineMs: 5000, ...options });
  t.after(() => made.close());
  return made;
}

async function reason(made: HttpScorer, text = 'a text'): Promise<string> {
  const score = await made.score(text);
  assert.equal(score.scanned, false);
  return score.scanned ? '' : score.reason;
}

test('a text is posted as JSON and its score comes back', async (t) => {
  const seen: unknown[] = [];
  answer = (request, response, body) => {
    seen.push(request.method, request.url, request.headers.authorization, request.headers['content-type'], JSON.parse(body));
    response.end('{"score": 0.75, "more": [1, 2]}');
  };
  assert.deepEqual(await scorer(t, { token: 't0ken' }).score('say "hi"\ud800', { policy: 'no payments' }), { scanned: true, score: 0.75, label: 'injection', excerpt: null, by: 'server' });
  assert.deepEqual(seen, ['POST', '/v1/score?model=a', 'Bearer t0ken', 'application/json', { text: 'say "hi"\ufffd', policy: 'no payments' }]);
});

test('connections are kept open for many texts', async (t) => {
  answer = (_, response) => response.end('{"score":0}');
  const made = scorer(t);
  for (let i = 0; i < 20; i++) assert.equal((await made.score(`text ${i}`)).scanned, true);
  assert.ok(connections <= 2, `${connections} connections`);
});

test('an answer that is not a score from 0 to 1 is no score', async (t) => {
  const made = scorer(t);
  for (const wrong of ['', 'null', '[]', '0.5', '{}', '{"score":"0.5"}', '{"score":-0.1}', '{"score":1.01}', '{"score":null}', '{"score":NaN}', '{"score":1e999}', '<html>', '{"score":0.5'] as const) {
    answer = (_, response) => response.end(wrong);
    assert.equal(await reason(made), 'the answer of the model server is not {"score": number from 0 to 1}', wrong);
  }
});

test('another status than 200 is no score, and a redirect is not followed', async (t) => {
  const made = scorer(t);
  for (const status of [201, 204, 302, 400, 429, 500]) {
    answer = (_, response) => response.writeHead(status, { location: '/elsewhere' }).end(status === 204 ? undefined : '{"score":0}');
    assert.equal(await reason(made), `the model server answered with status ${status}`);
  }
});

test('a slow server: headers, or the body, that do not come in time', async (t) => {
  const made = scorer(t, { deadlineMs: 150 });
  answer = () => {};
  assert.equal(await reason(made), 'the model server did not answer within 150 ms');
  answer = (_, response) => response.write('{"score"');
  assert.equal(await reason(made), 'the model server did not answer within 150 ms');
  let drip: NodeJS.Timeout;
  answer = (_, response) => {
    drip = setInterval(() => response.write(' '), 20);
    response.on('close', () => clearInterval(drip));
  };
  assert.equal(await reason(made), 'the model server did not answer within 150 ms');
  answer = (_, response) => response.end('{"score":0.5}');
  assert.equal((await made.score('afterwards')).scanned, true);
});

test('an endless answer is cut off', async (t) => {
  const made = scorer(t);
  let sent = 0;
  answer = (_, response) => {
    const more = (): void => {
      while (!response.destroyed && response.write('x'.repeat(65_536))) sent += 65_536;
    };
    response.on('drain', more);
    more();
  };
  assert.equal(await reason(made), 'the answer of the model server is longer than 16384 bytes');
  assert.ok(sent < 64 * 2 ** 20);
  answer = (_, response) => response.end('{"score":0.5}');
  assert.equal((await made.score('afterwards')).scanned, true);
});

test('a server that hangs up, speaks something else or is not there', async (t) => {
  const behaviours: ((socket: Socket) => void)[] = [(socket) => socket.destroy(), (socket) => socket.resetAndDestroy(), (socket) => socket.end('SSH-2.0-OpenSSH\r\n'), (socket) => socket.on('data', () => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{"score"'))];
  for (const behaviour of behaviours) {
    const other = createTcpServer((socket) => {
      socket.on('error', () => {}).resume();
      behaviour(socket);
    });
    await once(other.listen(0, '127.0.0.1'), 'listening');
    const { port } = other.address() as AddressInfo;
    const made = scorer(t, { url: `http://127.0.0.1:${port}/` });
    assert.match(await reason(made), /^the model server failed: /);
    other.close();
    await once(other, 'close');
    assert.match(await reason(made), /^the model server failed: .*ECONNREFUSED/);
  }
});

test('what would not fit is not sent', async (t) => {
  let asked = 0;
  answer = () => asked++;
  const made = scorer(t, { longestText: 10, mostWaiting: 1, deadlineMs: 1000 });
  assert.equal(await reason(made, 'x'.repeat(11)), 'the text has 11 characters, 10 can be sent to the model server');
  const held = made.score('held');
  assert.equal(await reason(made), '1 texts are already waiting for the model server');
  assert.equal((await held).scanned, false);
  assert.equal(asked, 1);
});

test('the caller can give up, and closing ends what is under way', async (t) => {
  answer = () => {};
  const made = scorer(t);
  const control = new AbortController();
  const given = made.score('a text', { signal: control.signal });
  control.abort(new Error('the client left'));
  await assert.rejects(given, /the client left/);
  await assert.rejects(made.score('a text', { signal: control.signal }), /the client left/);
  const open = made.score('a text');
  await made.close();
  assert.deepEqual(await open, { scanned: false, reason: 'the scorer was closed' });
  assert.deepEqual(await made.score('a text'), { scanned: false, reason: 'the scorer is closed' });
});

test('an address that cannot be one is refused when it is set, not when it is needed', () => {
  assert.throws(() => new HttpScorer({ url: 'model:8000' }), /"model:8000" is not the address of a model server: it must be an http or https URL/);
  assert.throws(() => new HttpScorer({ url: 'file:///etc/passwd' }), /it must be an http or https URL/);
  assert.throws(() => new HttpScorer({ url: 'http://user:secret@host/' }), (error: Error) => !error.message.includes('secret') && /must not contain a user or password/.test(error.message));
  assert.throws(() => new HttpScorer({ url: 'http://host/', deadlineMs: 0 }), /the deadline of a model server must be between 1 and 120000 ms, not 0/);
});
