import assert from 'node:assert/strict';
import { createServer, request as sendRequest, type IncomingHttpHeaders, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import { connect, createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { WebSocket, WebSocketServer } from 'ws';
import { PaddockError } from '../core/errors.ts';
import { DataPlane, type Entrance } from './data-plane.ts';
import { parsePort, parsePortPath } from './declaw/ports.ts';

/** Real sockets on both sides: only the sandbox in between is left out, since a tunnel is a TCP connection here too. */
describe('the data plane', () => {
  let program: Server;
  let front: Server;
  let plane: DataPlane;
  let listener: RequestListener = (_request, response) => response.end();
  let base: { host: string; port: number };
  let programPort: number;

  before(async () => {
    program = createServer((request, response) => listener(request, response));
    programPort = await listen(program);
    const entrance: Entrance = {
      claims: (request) => parsePortPath(request.url ?? ''),
      open: async (target, headers) => {
        if (headers['x-api-key'] !== 'good') throw new PaddockError('unauthenticated', 'no key');
        const port = parsePort(target.port);
        return { tunnel: await open(port), host: `localhost:${port}` };
      },
      privateHeaders: async () => new Set(['x-api-key', 'authorization']),
      failure: (error) => ({ status: (error as PaddockError).code === 'unauthenticated' ? 401 : 502, headers: { 'x-kind': 'failure' }, body: { message: (error as PaddockError).message } }),
    };
    plane = new DataPlane([entrance], () => 'r-1', () => {});
    front = createServer({ shouldUpgradeCallback: (request: IncomingMessage) => plane.claims(request) }, (request, response) => {
      if (!plane.handle(request, response)) response.writeHead(418).end();
    });
    front.on('upgrade', (request, socket, head) => plane.upgrade(request, socket, head));
    base = { host: '127.0.0.1', port: await listen(front) };
  });
  after(() => {
    plane.close();
    front.close().closeAllConnections();
    program.close().closeAllConnections();
  });

  test('method, path, query and body reach the program byte for byte', async () => {
    const seen: { method?: string; url?: string; body: string } = { body: '' };
    listener = (request, response) => {
      seen.method = request.method!;
      seen.url = request.url!;
      request.on('data', (chunk: Buffer) => (seen.body += chunk.toString()));
      request.on('end', () => response.writeHead(201, { 'x-own': 'yes' }).end('made'));
    };
    const answer = await send('PROPFIND', `/sandboxes/sbx-1/ports/${programPort}/a%2Fb//../%zz?x=%41+b&&`, { body: 'hello' });
    assert.deepEqual({ ...seen, status: answer.status, own: answer.headers['x-own'], text: answer.text }, { method: 'PROPFIND', url: '/a%2Fb//../%zz?x=%41+b&&', body: 'hello', status: 201, own: 'yes', text: 'made' });
  });

  test('the key stays outside, hop-by-hop headers end here, and what clients say about proxies is replaced', async () => {
    let headers: IncomingHttpHeaders = {};
    listener = (request, response) => {
      headers = request.headers;
      response.end();
    };
    await send('GET', `/sandboxes/sbx-1/ports/${programPort}/`, {
      headers: { authorization: 'Bearer dcl_x', 'x-forwarded-for': '6.6.6.6', 'x-forwarded-user': 'root', forwarded: 'for=6.6.6.6', connection: 'x-secret-hop', 'x-secret-hop': '1', te: 'trailers', 'x-kept': 'a', origin: `http://127.0.0.1:${base.port}` },
    });
    assert.deepEqual(headers, {
      host: `localhost:${programPort}`,
      'x-kept': 'a',
      origin: `http://localhost:${programPort}`,
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': `127.0.0.1:${base.port}`,
      'x-forwarded-prefix': `/sandboxes/sbx-1/ports/${programPort}`,
      connection: 'keep-alive',
    });
  });

  test('a foreign origin is passed on as it is', async () => {
    let origin: string | undefined;
    listener = (request, response) => {
      origin = request.headers.origin;
      response.end();
    };
    await send('GET', `/sandboxes/sbx-1/ports/${programPort}/`, { headers: { origin: 'https://evil.example' } });
    assert.equal(origin, 'https://evil.example');
  });

  test('Set-Cookie does not come out, other headers do, duplicates included', async () => {
    listener = (_request, response) => {
      response.writeHead(200, [['Set-Cookie', 'a=b'], ['Link', '</1>'], ['Link', '</2>'], ['Keep-Alive', 'timeout=1']].flat());
      response.end('x');
    };
    const { headers } = await send('GET', `/sandboxes/sbx-1/ports/${programPort}`);
    assert.equal(headers['set-cookie'], undefined);
    assert.equal(headers['keep-alive'] === 'timeout=1', false);
    assert.equal(headers['link'], '</1>, </2>');
  });

  test('an answer streams: its first bytes arrive while the program is still writing', async () => {
    let finish: () => void = () => {};
    listener = (_request, response) => {
      response.write('first');
      finish = () => response.end('last');
    };
    const answer = await new Promise<IncomingMessage>((resolve) => sendRequest({ ...base, path: `/sandboxes/sbx-1/ports/${programPort}/`, headers: { 'x-api-key': 'good' } }, resolve).end());
    const chunks = answer[Symbol.asyncIterator]();
    assert.equal(String((await chunks.next()).value), 'first');
    finish();
    assert.equal(String((await chunks.next()).value), 'last');
  });

  test('a large body goes through in both directions', async () => {
    listener = (request, response) => request.pipe(response);
    const body = Buffer.alloc(8 << 20, 'abc');
    const answer = await send('POST', `/sandboxes/sbx-1/ports/${programPort}/`, { body });
    assert.ok(answer.bytes.equals(body));
  });

  test('a program that answers without reading the body is heard', async () => {
    listener = (_request, response) => response.writeHead(413).end('too much');
    const answer = await send('POST', `/sandboxes/sbx-1/ports/${programPort}/`, { body: Buffer.alloc(4 << 20) });
    assert.equal(answer.status, 413);
  });

  test('a client that leaves ends the request to the program', async () => {
    const { promise: left, resolve } = Promise.withResolvers<void>();
    listener = (request) => request.socket.once('close', () => resolve());
    const request = sendRequest({ ...base, path: `/sandboxes/sbx-1/ports/${programPort}/`, headers: { 'x-api-key': 'good' } });
    request.on('error', () => {});
    request.end();
    setTimeout(() => request.destroy(), 50);
    await left;
  });

  test('without a key, with a bad port and with nothing listening the answer is the wire\'s own', async () => {
    const noKey = await send('GET', `/sandboxes/sbx-1/ports/${programPort}/`, { headers: { 'x-api-key': 'bad' } });
    assert.deepEqual([noKey.status, noKey.text, noKey.headers['x-kind']], [401, '{"message":"no key"}', 'failure']);
    assert.equal((await send('GET', '/sandboxes/sbx-1/ports/0/')).status, 502);
    assert.equal((await send('GET', '/sandboxes/sbx-1/ports/1/')).status, 502);
    assert.equal((await send('GET', '/elsewhere')).status, 418);
  });

  for (const [name, reply] of [
    ['does not speak HTTP', 'SSH-2.0-OpenSSH\r\n'],
    ['closes the connection', ''],
    ['answers with two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab'],
    ['switches protocols unasked', 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n'],
  ] as const) {
    test(`a program that ${name} is a 502`, async () => {
      const server = createTcpServer((socket) => socket.on('error', () => {}).end(reply));
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      try {
        assert.equal((await send('GET', `/sandboxes/sbx-1/ports/${(server.address() as AddressInfo).port}/`)).status, 502);
      } finally {
        server.close();
      }
    });
  }

  describe('WebSockets', () => {
    let sockets: WebSocketServer;
    let asked: IncomingMessage;
    before(() => {
      sockets = new WebSocketServer({ server: program, path: '/ws' });
      sockets.on('connection', (socket, request) => {
        asked = request;
        socket.send('welcome');
        socket.on('message', (data) => socket.send(`echo ${String(data)}`));
      });
    });
    after(() => sockets.close());

    test('messages go both ways, without the key', async () => {
      const socket = new WebSocket(`ws://127.0.0.1:${base.port}/sandboxes/sbx-1/ports/${programPort}/ws?token=1`, { headers: { 'x-api-key': 'good', authorization: 'Bearer x' } });
      const received: string[] = [];
      await new Promise<void>((resolve) => {
        socket.on('open', () => socket.send('hi'));
        socket.on('message', (data) => {
          received.push(String(data));
          if (received.length === 2) resolve();
        });
      });
      assert.deepEqual(received, ['welcome', 'echo hi']);
      assert.equal(asked.url, '/ws?token=1');
      assert.equal(asked.headers['x-api-key'], undefined);
      assert.equal(asked.headers.authorization, undefined);
      assert.equal(asked.headers.host, `localhost:${programPort}`);
      const closed = new Promise((resolve) => socket.on('close', (code: number) => resolve(code)));
      socket.close(1000);
      assert.equal(await closed, 1000);
    });

    test('an upgrade without a key is a 401 in HTTP', async () => {
      assert.deepEqual(await refusal(`/sandboxes/sbx-1/ports/${programPort}/ws`, 'bad'), { status: 401, text: '{"message":"no key"}' });
    });

    test('an upgrade the program refuses is answered with its own answer', async () => {
      assert.deepEqual(await refusal(`/sandboxes/sbx-1/ports/${programPort}/not-a-socket`, 'good'), { status: 400, text: 'Bad Request' });
    });

    test('an upgrade to a port where nothing listens is a 502', async () => {
      assert.equal((await refusal('/sandboxes/sbx-1/ports/1/', 'good')).status, 502);
    });

    function refusal(path: string, key: string): Promise<{ status: number; text: string }> {
      return new Promise((resolve, reject) => {
        const socket = new WebSocket(`ws://127.0.0.1:${base.port}${path}`, { headers: { 'x-api-key': key } });
        socket.on('open', () => reject(new Error('it was accepted')));
        socket.on('error', () => {});
        socket.on('unexpected-response', (_request, response) => {
          let text = '';
          response.on('data', (chunk: Buffer) => (text += chunk.toString()));
          response.on('end', () => resolve({ status: response.statusCode!, text }));
        });
      });
    }
  });

  interface Answer {
    readonly status: number;
    readonly headers: IncomingHttpHeaders;
    readonly bytes: Buffer;
    readonly text: string;
  }

  function send(method: string, path: string, options: { headers?: Record<string, string>; body?: string | Buffer } = {}): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const request = sendRequest({ ...base, method, path, headers: { 'x-api-key': 'good', ...options.headers } }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => {
          const bytes = Buffer.concat(chunks);
          resolve({ status: response.statusCode!, headers: response.headers, bytes, text: bytes.toString() });
        });
        response.on('error', reject);
      });
      request.on('error', reject);
      request.end(options.body);
    });
  }
});

function listen(server: Server): Promise<number> {
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)));
}

function open(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => resolve(socket));
    socket.once('error', () => reject(new PaddockError('not_listening', `nothing listens on ${port}`)));
  });
}
