import assert from 'node:assert/strict';
import { Agent, request as sendRequest, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http';
import { connect } from 'node:net';
import { Readable } from 'node:stream';
import { text as readText } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { pino } from 'pino';
import { base, Server as Core, until } from './core/testing/server.ts';
import { Tokens } from './core/tokens.ts';
import { requestId } from './request-context.ts';
import { buildServer, type Server } from './server.ts';

/** The whole HTTP side on a real socket, the real core on a real database; only the machine is made of memory. */
describe('the server', () => {
  let core: Core;
  let server: Server;
  let url: URL;
  let key: string;
  const agent = new Agent({ keepAlive: true });

  before(async () => {
    core = await Core.start({ maxFileBytes: 1 << 20 });
    key = (await core.access.createKey('test')).raw;
    [server, url] = await serve(core);
  });
  after(async () => {
    agent.destroy();
    await server.close();
    await core[Symbol.asyncDispose]();
  });

  interface Answer {
    readonly status: number;
    readonly headers: IncomingMessage['headers'];
    readonly text: string;
    readonly json: any; // each test knows what it asked for
    readonly socketReused: boolean;
  }

  async function call(method: string, path: string, options: { json?: unknown; body?: string | Readable; headers?: OutgoingHttpHeaders; key?: string | null; to?: URL } = {}): Promise<Answer> {
    const { request, response } = await begin(method, path, options);
    const text = await readText(response);
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      json = undefined;
    }
    return { status: response.statusCode!, headers: response.headers, text, json, socketReused: request.reusedSocket };
  }

  function begin(method: string, path: string, options: Parameters<typeof call>[2] = {}): Promise<{ request: ReturnType<typeof sendRequest>; response: IncomingMessage }> {
    const target = options.to ?? url;
    const headers: OutgoingHttpHeaders = { ...options.headers };
    if (options.key !== null) headers['authorization'] = `Bearer ${options.key ?? key}`;
    const body = options.json === undefined ? options.body : JSON.stringify(options.json);
    if (options.json !== undefined) headers['content-type'] = 'application/json';
    return new Promise((resolve, reject) => {
      const request = sendRequest({ host: target.hostname, port: target.port, method, path, headers, agent }, (response) => resolve({ request, response }));
      request.on('error', reject);
      if (body instanceof Readable) body.pipe(request);
      else request.end(body);
    });
  }

  async function create(body: object = {}): Promise<string> {
    const { status, json, text } = await call('POST', '/sandboxes', { json: body });
    assert.equal(status, 201, text);
    return json.sandbox_id;
  }

  test('health needs no key', async () => {
    const { status, json, headers } = await call('GET', '/health', { key: null });
    assert.deepEqual([status, json], [200, { status: 'ok', version: 'test' }]);
    assert.ok(headers['x-request-id']);
  });

  test('what does not exist is 404, what exists with another method is 405 and says which', async () => {
    assert.deepEqual((await call('GET', '/nothing/here?secret=1')).json, { message: 'There is nothing at GET /nothing/here.', code: 'not_found' });
    const { status, headers, json } = await call('PUT', '/sandboxes/sbx-1/files');
    assert.deepEqual([status, headers['allow'], json.code], [405, 'DELETE, GET, PATCH, POST', 'method_not_allowed']);
    assert.equal((await call('HEAD', '/sandboxes')).status, 405);
    assert.deepEqual((await call('GET', '/sandboxes/%zz')).json, { message: "The URL cannot be read: '/sandboxes/%zz' is not a valid url component.", code: 'invalid_argument' });
    const tooMuch = await call('GET', '/health', { headers: { x: 'a'.repeat(40_000), connection: 'close' } });
    assert.deepEqual([tooMuch.status, tooMuch.json.message], [431, 'The headers are larger than 32 KiB.']);
  });

  test('a create is echoed, found again, listed and killed', async () => {
    const body = { metadata: { a: 'b' }, envs: { X: 'y' }, network: { deny_out: ['*'], later: 1 }, security: { policy_json: '{}' }, lifecycle: { on_timeout: 'kill' }, timeout: 0 };
    const { status, json } = await call('POST', '/sandboxes', { json: body });
    assert.equal(status, 201);
    for (const [field, value] of Object.entries(body)) assert.deepEqual(json[field], value, field);
    assert.equal(json.end_at, null);
    const again = await call('GET', `/sandboxes/${json.sandbox_id}`);
    assert.deepEqual(again.json, { ...json, resources: { vcpus: base.limits.vcpus, memory_mb: base.limits.memoryMb, disk_mb: base.limits.diskMb } });
    assert.deepEqual((await call('GET', '/sandboxes?metadata.a=b')).json, { sandboxes: [json], next_token: null, total: 1 });
    assert.deepEqual((await call('DELETE', `/sandboxes/${json.sandbox_id}`)).json, { killed: true });
    assert.deepEqual((await call('DELETE', `/sandboxes/${json.sandbox_id}`)).json, { killed: false });
    const queued = await call('DELETE', `/sandboxes/${json.sandbox_id}?async=true`);
    assert.deepEqual([queued.status, queued.json], [202, { queued: true }]);
    assert.deepEqual((await call('GET', `/sandboxes/${json.sandbox_id}/status`)).json, { is_running: false });
  });

  test('the sandbox gets the environment and the name of this wire', async () => {
    const id = await create({ envs: { OWN: '1' } });
    const { identity } = core.host.specs.at(-1)!;
    assert.equal(identity.hostname, id);
    assert.equal(identity.defaultUser, 'user');
    assert.deepEqual([identity.env['DECLAW_SANDBOX'], identity.env['DECLAW_SANDBOX_ID'], identity.env['OWN']], ['true', id, '1']);
  });

  test('kill-many answers for each id', async () => {
    const id = await create();
    const { status, json } = await call('POST', '/sandboxes/kill-many', { json: { sandbox_ids: [id, 'sbx-zzzzzzzz', id, '__proto__'] } });
    assert.equal(status, 200);
    assert.deepEqual(Object.entries(json.results).sort(), [['__proto__', { error: 'Sandbox __proto__ not found' }], [id, { killed: true }], ['sbx-zzzzzzzz', { error: 'Sandbox sbx-zzzzzzzz not found' }]].sort());
    assert.equal((await call('POST', '/sandboxes/kill-many?async=true', { json: { sandbox_ids: [await create()] } })).status, 202);
  });

  test('Go gets one sample of metrics where the others get a list', async () => {
    const id = await create();
    const sample = (await call('GET', `/sandboxes/${id}/metrics`)).json[0];
    assert.deepEqual([sample.cpu_usage_percent, sample.memory_usage_mb, sample.disk_usage_mb], [12.5, 128, 50]);
    assert.equal((await call('GET', `/sandboxes/${id}/metrics`, { headers: { 'user-agent': 'Go-http-client/1.1' } })).json.memory_usage_mb, 128);
  });

  test('bodies are read whatever they are called, and may be missing', async () => {
    const id = await create();
    for (const headers of [{}, { 'content-type': 'application/json; charset=utf-8' }, { 'content-type': 'application/x-www-form-urlencoded' }]) {
      assert.equal((await call('POST', `/sandboxes/${id}/commands`, { body: '{"cmd":"print hi"}', headers })).json.stdout, 'hi');
    }
    assert.equal((await call('POST', `/sandboxes/${id}/pty`, { headers: { 'content-type': 'application/json' } })).status, 200);
    assert.equal((await call('POST', '/sandboxes')).status, 201);
  });

  test('what fails is JSON with a message, also before the wire', async () => {
    for (const [method, path, options, status, message] of [
      ['POST', '/sandboxes', { body: '{' }, 400, 'The body is not valid JSON.'],
      ['POST', '/sandboxes', { body: 'null' }, 400, 'The body must be an object.'],
      ['POST', '/sandboxes', { json: { timeout: '5' } }, 400, 'timeout must be a whole number.'],
      ['GET', '/sandboxes', { key: 'dcl_wrong' }, 401, 'unauthorized: missing or invalid API key'],
      ['POST', '/sandboxes', { json: { resources: {} } }, 403, 'resources cannot be chosen for a sandbox: they come from its template.'],
      ['GET', '/sandboxes/sbx-aaaaaaaa', {}, 404, 'Sandbox sbx-aaaaaaaa not found'],
      ['POST', '/sandboxes/sbx-aaaaaaaa/pause', {}, 404, 'Sandbox sbx-aaaaaaaa not found'],
      ['POST', '/sandboxes/sbx-aaaaaaaa/fork', { json: { count: 0 } }, 400, 'count must be at least 1.'],
      ['GET', '/governance/packs', {}, 422, 'Governance packs: not available in this version of Paddock.'],
      ['PUT', '/volumes/v/files/raw?path=a', { body: 'x' }, 404, 'Volume v not found'],
    ] as const) {
      const answer = await call(method, path, options);
      assert.deepEqual([answer.status, answer.json?.message], [status, message], `${method} ${path}`);
    }
  });

  test('a JSON body above 10 MiB is 413, and the connection can be used again', async () => {
    const big = (): Readable => Readable.from(Array.from({ length: 12 }, () => Buffer.alloc(1 << 20, ' ')));
    const { status, json } = await call('POST', '/sandboxes', { body: big() });
    assert.deepEqual([status, json.code], [413, 'too_large']);
    const announced = await call('POST', '/sandboxes', { body: big(), headers: { 'content-length': 12 << 20 } });
    assert.equal(announced.status, 413);
    assert.equal((await call('GET', '/sandboxes')).status, 200);
  });

  test('a raw body above the limit is 413 without a length too, and the file stays as it was', async () => {
    const id = await create();
    const put = (body: string | Readable): Promise<Answer> => call('PUT', `/sandboxes/${id}/files/raw?path=/a+b%26c`, { body });
    assert.deepEqual((await put('before')).json, { path: '/a b&c', size: 6 });
    assert.equal((await put(Readable.from(Array.from({ length: 40 }, () => Buffer.alloc(64 << 10))))).status, 413);
    assert.equal((await call('GET', `/sandboxes/${id}/files?path=/a%20b%26c`)).text, 'before');
    assert.equal((await call('PUT', `/sandboxes/${id}/files/raw?path=/x`, { headers: { 'content-length': 600 << 20, connection: 'close' } })).status, 413);
  });

  test('a client that leaves in the middle of an upload changes nothing', async () => {
    const id = await create();
    await call('POST', `/sandboxes/${id}/files`, { json: { path: '/kept', data: 'before' } });
    const request = sendRequest({ host: url.hostname, port: url.port, method: 'PUT', path: `/sandboxes/${id}/files/raw?path=/kept`, headers: { authorization: `Bearer ${key}` } });
    request.on('error', () => {});
    request.write('half');
    await new Promise((resolve) => setTimeout(resolve, 50));
    request.destroy();
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal((await call('GET', `/sandboxes/${id}/files?path=/kept`)).text, 'before');
  });

  test('a listing of nothing is empty, of a sandbox that is none a 404', async () => {
    const id = await create();
    assert.deepEqual((await call('GET', `/sandboxes/${id}/files/list?path=/none`)).json, []);
    assert.equal((await call('GET', '/sandboxes/sbx-aaaaaaaa/files/list?path=/none')).status, 404);
    const missing = await call('GET', `/sandboxes/${id}/files?path=/none`);
    assert.deepEqual([missing.status, missing.json.message], [404, 'no such file: /none']);
  });

  test('a batch is written in order of its entries', async () => {
    const id = await create();
    const files = Array.from({ length: 30 }, (_, i) => ({ path: `/f${i}`, data: 'x'.repeat(i) }));
    assert.deepEqual((await call('POST', `/sandboxes/${id}/files/batch`, { json: { files } })).json, files.map(({ path, data }) => ({ path, size: data.length })));
  });

  test('a stream has the headers and the events of the contract', async () => {
    const id = await create();
    const { response } = await begin('POST', `/sandboxes/${id}/commands/stream`, { json: { cmd: 'print a; err b; exit 7', stream: true } });
    assert.equal(response.headers['content-type'], 'text/event-stream');
    assert.equal(response.headers['cache-control'], 'no-cache');
    assert.ok(response.headers['x-request-id']);
    assert.deepEqual((await readText(response)).split('\n\n').map((frame) => frame.split('\n')[0]), ['event: stdout', 'event: stderr', 'event: exit', '']);
  });

  test('what is wrong before a stream begins is an ordinary error', async () => {
    const id = await create();
    const { status, headers } = await call('POST', `/sandboxes/${id}/commands/stream`, { json: { cmd: 'print a', user: 'nobody-here' } });
    assert.deepEqual([status, headers['content-type']], [400, 'application/json; charset=utf-8']);
    assert.equal((await call('GET', `/sandboxes/${id}/stdio/p99/stream`)).status, 404);
  });

  test('a client that leaves ends its command, streamed or not', async () => {
    const id = await create();
    const guest = [...core.host.guests.values()].at(-1)!;
    for (const path of ['commands', 'commands/stream']) {
      const request = sendRequest({ host: url.hostname, port: url.port, method: 'POST', path: `/sandboxes/${id}/${path}`, headers: { authorization: `Bearer ${key}` } });
      request.on('error', () => {});
      request.end('{"cmd":"cat","timeout":0,"stdin":true}');
      await until('the command runs', () => guest.processes_.size === 1);
      request.destroy();
      await until('the command is gone', () => guest.processes_.size === 0);
    }
  });

  test('a reader of a stdio session comes back where it was', async () => {
    const id = await create();
    const { cmd_id: session } = (await call('POST', `/sandboxes/${id}/stdio`, { json: { cmd: 'print one; err two; exit 3' } })).json;
    const whole = (await call('GET', `/sandboxes/${id}/stdio/${session}/stream`)).text;
    assert.match(whole, /entry_id":1.*entry_id":2.*exit_code":3/s);
    const rest = (await call('GET', `/sandboxes/${id}/stdio/${session}/stream?last_entry_id=1`)).text;
    assert.ok(!rest.includes('entry_id":1,') && rest.includes('entry_id":2') && rest.includes('exit_code":3'));
    assert.deepEqual((await call('DELETE', `/sandboxes/${id}/stdio/${session}`)).json, { killed: false });
  });

  test('waiting for a process nobody knows is an answer, not an error', async () => {
    const id = await create();
    assert.deepEqual((await call('GET', `/sandboxes/${id}/commands/4711/wait`)).json, { stdout: '', stderr: 'process not found', exit_code: 1 });
    assert.equal((await call('GET', `/sandboxes/${id}/commands/abc/wait`)).status, 400);
  });

  test('a guest that dies in the middle of a command is a 410, which no client repeats', async () => {
    const id = await create();
    const [sandboxId, guest] = [...core.host.guests.entries()].at(-1)!;
    const answer = call('POST', `/sandboxes/${id}/commands`, { json: { cmd: 'sleep 5000', timeout: 0 } });
    await until('the command runs', () => guest.processes_.size === 1);
    core.host.kill(sandboxId, { reason: 'out_of_memory', detail: 'too much' });
    const { status, json } = await answer;
    assert.equal(status, 410);
    assert.match(json.message, /memory/);
  });

  test('two creates with one Idempotency-Key make one sandbox', async () => {
    const headers = { 'idempotency-key': 'k-1' };
    const first = await call('POST', '/sandboxes', { json: { metadata: { n: '1' } }, headers });
    assert.deepEqual((await call('POST', '/sandboxes', { json: { metadata: { n: '1' } }, headers })).json, first.json);
    const other = await call('POST', '/sandboxes', { json: { metadata: { n: '2' } }, headers });
    assert.deepEqual([other.status, other.json.code], [422, 'idempotency_key_reused']);
    const { promise, resolve } = Promise.withResolvers<void>();
    core.host.onProvision = () => promise;
    const slow = call('POST', '/sandboxes', { json: {}, headers: { 'idempotency-key': 'k-2' } });
    await until('it is being made', () => core.host.specs.length > 0);
    const busy = await call('POST', '/sandboxes', { json: {}, headers: { 'idempotency-key': 'k-2' } });
    assert.deepEqual([busy.status, busy.json.code, busy.headers['retry-after']], [409, 'idempotency_in_progress', '1']);
    core.host.onProvision = async () => undefined;
    resolve();
    assert.equal((await slow).status, 201);
  });

  test('the port proxy asks for the key, the port and the sandbox in the words of the wire', async () => {
    const id = await create();
    for (const [path, options, status, message] of [
      [`/sandboxes/${id}/ports/8080/`, { key: null }, 401, 'unauthorized: missing or invalid API key'],
      [`/sandboxes/${id}/ports/none/`, {}, 400, 'port must be a whole number from 1 to 65535, but is "none".'],
      [`/sandboxes/${id}/ports/1234/`, {}, 502, 'nothing listens on port 1234'],
      ['/sandboxes/sbx-aaaaaaaa/ports/8080/', {}, 404, 'Sandbox sbx-aaaaaaaa not found'],
    ] as const) {
      const answer = await call('GET', path, options);
      assert.deepEqual([answer.status, answer.json?.message], [status, message]);
    }
    const closed = await create({ network: { allow_public_traffic: false } });
    assert.equal((await call('GET', `/sandboxes/${closed}/ports/8080/`)).status, 403);
    assert.equal((await call('GET', `/sandboxes/${id}/ports/49983/`)).status, 403);
  });

  test('whatever works for a request knows its id, behind the body of the request too', async () => {
    const seen: (string | null)[] = [];
    core.host.onProvision = async () => {
      await new Promise((resolve) => setTimeout(resolve, 1));
      seen.push(requestId());
    };
    const answers = await Promise.all([call('POST', '/sandboxes', { json: {} }), call('POST', '/sandboxes', { body: Readable.from(['{', '}']), headers: { 'content-type': 'application/json' } }), call('POST', '/superserve/sandboxes', { json: { name: 'x', from_template: 'base' }, headers: { 'x-api-key': key } })]);
    core.host.onProvision = async () => undefined;
    assert.deepEqual(new Set(seen), new Set(answers.map((each) => each.headers['x-request-id'])));
    assert.equal(requestId(), null);
  });

  test('while it stops, what would begin is to be repeated elsewhere and what is short is answered', async () => {
    const [other, there] = await serve(core);
    const created = core.host.specs.length;
    // Requests that are on their way when the stop begins.
    const [create, list, ready] = await Promise.all(['POST /sandboxes', 'GET /sandboxes', 'GET /ready'].map((line) => halfSent(there, `${line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\n`)));
    const closing = other.close();
    const answers = await Promise.all([create!.finish('Content-Length: 2\r\nContent-Type: application/json\r\n\r\n{}'), list!.finish('\r\n'), ready!.finish('\r\n')]);
    await closing;
    assert.match(answers[0]!, /^HTTP\/1\.1 503 .*\r\nretry-after: 1\r\n.*the server is stopping/is);
    assert.match(answers[0]!, /connection: close/i);
    assert.match(answers[1]!, /^HTTP\/1\.1 200 /);
    assert.match(answers[2]!, /^HTTP\/1\.1 503 .*\{"status":"draining"\}/s);
    assert.equal(core.host.specs.length, created);
    await assert.rejects(call('GET', '/health', { to: there, headers: { connection: 'close' } }), /ECONNREFUSED/);
  });

  test('a server that stops ends streams with an error and long commands with an answer that is not repeated', async () => {
    const [other, there] = await serve(core);
    const id = await create();
    const stream = await begin('POST', `/sandboxes/${id}/commands/stream`, { json: { cmd: 'print a; sleep 60000', timeout: 0 }, to: there });
    const events = readText(stream.response);
    const long = call('POST', `/sandboxes/${id}/commands`, { json: { cmd: 'cat', stdin: true, timeout: 0 }, to: there });
    await until('both run', () => [...core.host.guests.values()].at(-1)!.processes_.size === 2);
    const begun = Date.now();
    await other.close();
    assert.ok(Date.now() - begun < 2500, 'it took too long');
    assert.match(await events, /event: error\ndata: \{"error":"the server is being stopped"\}\n\n$/);
    const { status, json } = await long;
    assert.deepEqual([status, json.message], [409, 'The server was stopped before the command was over.']);
  });
});

/** Sends the beginning of a request; `finish` sends the rest and resolves to all that was answered. */
async function halfSent(url: URL, beginning: string): Promise<{ finish: (rest: string) => Promise<string> }> {
  const socket = connect(Number(url.port), url.hostname);
  await new Promise<void>((resolve) => socket.write(beginning, () => resolve()));
  await new Promise((resolve) => setTimeout(resolve, 50)); // until the server has seen it
  return {
    finish: (rest) => {
      socket.write(rest);
      return readText(socket);
    },
  };
}

async function serve(core: Core): Promise<[Server, URL]> {
  const server = await buildServer({
    access: core.access,
    idempotency: core.idempotency,
    sandboxes: core.sandboxes,
    processes: core.processes,
    files: core.files,
    networks: core.networks,
    ports: core.ports,
    volumes: core.volumes,
    volumeFiles: core.volumeFiles,
    volumeLocks: core.volumeLocks,
    volumeCaptures: core.volumeCaptures,
    secrets: core.secrets,
    secretAttachments: core.secretAttachments,
    templates: core.catalog,
    ownTemplates: core.templates,
    tokens: new Tokens(core.store.deriveKey('sandbox tokens')),
    clock: core.clock,
    domain: 'sandbox.localhost',
    maxTimeoutSeconds: 0,
    superserve: core.superserve,
    cursorKey: core.store.deriveKey('cursors'),
    log: pino({ level: 'silent' }),
    version: 'test',
  });
  return [server, new URL(await server.listen('127.0.0.1', 0))];
}
