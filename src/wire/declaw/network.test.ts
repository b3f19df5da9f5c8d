import assert from 'node:assert/strict';
import { createServer, request as sendRequest, type IncomingMessage } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { text as readText } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { pino } from 'pino';
import { WebSocket, WebSocketServer } from 'ws';
import { Server as Core, until } from '../../core/testing/server.ts';
import type { ConnectionEvent } from '../../core/network/egress.ts';
import { Tokens } from '../../core/tokens.ts';
import { buildServer, type Server } from '../../server.ts';

/** The endpoints about networks over the real core; only the machine is made of memory. */
describe('the network of sandboxes on this wire', () => {
  let core: Core;
  let server: Server;
  let url: URL;
  let key: string;
  const program = createServer((request, response) => response.end(JSON.stringify({ url: request.url, headers: request.headers })));
  const sockets = new WebSocketServer({ server: program });

  before(async () => {
    core = await Core.start();
    key = (await core.access.createKey('test')).raw;
    const tokens = new Tokens(core.store.deriveKey('sandbox tokens'));
    const { access, sandboxes, processes, files, networks, ports, volumes, volumeFiles, volumeLocks, volumeCaptures, secrets, secretAttachments, clock, idempotency } = core;
    server = await buildServer({ access, sandboxes, processes, files, networks, ports, volumes, volumeFiles, volumeLocks, volumeCaptures, secrets, secretAttachments, clock, idempotency, tokens, templates: core.catalog, ownTemplates: core.templates, domain: 'box.example', maxTimeoutSeconds: 0, superserve: core.superserve, cursorKey: core.store.deriveKey('cursors'), log: pino({ level: 'silent' }), version: 'test' });
    url = new URL(await server.listen('127.0.0.1', 0));
    await new Promise<void>((resolve) => program.listen(0, '127.0.0.1', resolve));
    sockets.on('connection', (socket, request) => socket.send(request.headers.host ?? ''));
  });
  after(async () => {
    sockets.close();
    program.close().closeAllConnections();
    await server.close();
    await core[Symbol.asyncDispose]();
  });

  interface Answer {
    readonly status: number;
    readonly json: any; // each test knows what it asked for
  }

  async function call(method: string, path: string, options: { json?: unknown; headers?: Record<string, string>; key?: string | null } = {}): Promise<Answer> {
    const headers = { ...(options.key === null ? {} : { authorization: `Bearer ${options.key ?? key}` }), ...options.headers };
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const request = sendRequest({ host: url.hostname, port: url.port, method, path, headers }, resolve);
      request.on('error', reject);
      request.end(options.json === undefined ? undefined : JSON.stringify(options.json));
    });
    const text = await readText(response);
    return { status: response.statusCode!, json: text.startsWith('{') ? JSON.parse(text) : text };
  }

  async function create(body: object = {}): Promise<{ id: string; token: string; uuid: ConnectionEvent['sandboxId'] }> {
    const { status, json } = await call('POST', '/sandboxes', { json: body });
    assert.equal(status, 201, JSON.stringify(json));
    const { identity } = core.host.specs.at(-1)!;
    core.host.memory(identity.sandboxId).tunnel = async (port) => {
      assert.equal(port, 3000);
      return connect((program.address() as AddressInfo).port, '127.0.0.1');
    };
    return { id: json.sandbox_id, token: json.traffic_access_token, uuid: identity.sandboxId };
  }

  function connection(sandboxId: ConnectionEvent['sandboxId'], changes: Partial<ConnectionEvent> = {}): ConnectionEvent {
    return { sandboxId, at: Date.now(), host: 'files.example.org', address: '198.51.100.23', port: 443, protocol: 'tcp', verdict: 'allowed', matchRule: 'domain', rule: '*.example.org', reason: '', bytesSent: 812, bytesReceived: 40_211, durationMs: 12, count: 1, ...changes };
  }

  test('rules given at create are echoed as received and put in force', async () => {
    const network = { allow_out: ['PyPI.org', '10.1.2.3/8'], deny_out: ['*'], mask_request_host: false, later: 1 };
    const { id } = await create({ network });
    assert.deepEqual((await call('GET', `/sandboxes/${id}`)).json.network, network);
    assert.deepEqual(core.host.specs.at(-1)?.network.allow.map((rule) => rule.kind), ['name', 'cidr']);
    await create({ security: { policy_json: JSON.stringify({ network: { allow_out: ['x.com'] } }) } });
    assert.deepEqual(core.host.specs.at(-1)?.network.allow.map((rule) => rule.text), ['x.com']);
  });

  const bad: [object, string][] = [
    [{ network: { allow_out: ['x.com', 'https://y.com/'] } }, 'network.allow_out[1] "https://y.com/" is a URL; give only the host'],
    [{ network: { deny_out: ['::1'] } }, 'network.deny_out[0] "::1" is an IPv6 address; IPv6 is not supported, and sandboxes have none: nothing needs to be denied'],
    [{ security: { network: { allow_out: ['x.com:80'] } } }, 'security.network.allow_out[0] "x.com:80" has a port; give only the host: rules hold for every port'],
    [{ network: { mask_request_host: 'a b' } }, 'network.mask_request_host must be a host or host:port, where ${PORT} stands for the port, not "a b"'],
  ];
  for (const [body, message] of bad) {
    test(message, async () => {
      const answer = await call('POST', '/sandboxes', { json: body });
      assert.deepEqual([answer.status, answer.json], [400, { message, code: 'invalid_argument' }]);
    });
  }

  test('rules are replaced at run time; what cannot be is named', async () => {
    const { id, uuid } = await create({ network: { deny_out: ['*'], allow_public_traffic: true } });
    const changed = await call('PUT', `/sandboxes/${id}/network`, { json: { allow_out: ['x.com'], deny_out: null } });
    assert.deepEqual(changed, { status: 200, json: { network: { allow_public_traffic: true, allow_out: ['x.com'], deny_out: [] } } });
    assert.deepEqual((await call('GET', `/sandboxes/${id}`)).json.network, changed.json.network);
    assert.equal(core.host.networks.get(uuid)?.deny.length, 0);
    assert.deepEqual((await call('PUT', `/sandboxes/${id}/network`, { json: { allow_public_traffic: false } })).json.message, 'allow_public_traffic cannot be changed after a sandbox was created; leave it out.');
    assert.deepEqual((await call('PUT', `/sandboxes/${id}/network`, { json: { allow_out: ['a b'] } })).status, 400);
    assert.deepEqual((await call('PUT', '/sandboxes/sbx-nobody00/network', { json: {} })).json.message, 'Sandbox sbx-nobody00 not found');
    await call('DELETE', `/sandboxes/${id}`);
    assert.equal((await call('PUT', `/sandboxes/${id}/network`, { json: {} })).status, 410);
  });

  test('an explanation names the verdict and the rule, of a policy and of a sandbox', async () => {
    const network = { allow_out: ['*.x.com'], deny_out: ['*'] };
    const { status, json } = await call('POST', '/network/explain', { json: { network, target: 'https://evil.com/' } });
    assert.deepEqual([status, json], [200, { target: 'https://evil.com/', host: 'evil.com', address: null, port: 443, verdict: 'blocked', match_rule: 'cidr', rule: '*', reason: 'evil.com is denied by the rule "*" in deny_out.', dials: null, notes: [] }]);
    const { id } = await create({ network });
    const of = await call('GET', `/sandboxes/${id}/network/explain?target=${encodeURIComponent('wss://a.X.com:8443/x')}`);
    assert.deepEqual([of.json.verdict, of.json.rule, of.json.dials], ['allowed', '*.x.com', 'a.x.com:8443, at an address that the server itself resolves']);
    assert.equal((await call('GET', `/sandboxes/${id}/network/explain`)).status, 400);
    assert.equal((await call('GET', `/sandboxes/${id}/network/explain?target=a%20b`)).status, 400);
    assert.equal((await call('POST', '/network/explain', { key: null, json: { target: 'x.com' } })).status, 401);
  });

  test('the log has the shape of the contract, page by page, and is there after the end', async () => {
    const { id, uuid } = await create();
    const start = Date.now() - 5000;
    await core.host.connected(...[0, 1, 2].map((n) => connection(uuid, { at: start + n * 1000 })), connection(uuid, { at: start + 3000, host: null, verdict: 'blocked', matchRule: 'cidr', rule: '*', reason: 'no', count: 4, bytesSent: 0, bytesReceived: 0 }));
    await call('DELETE', `/sandboxes/${id}`);
    const first = (await call('GET', `/sandboxes/${id}/network?limit=2`)).json;
    assert.equal(first.has_more, true);
    const [blocked, allowed] = first.data;
    const { id: seq, ...fields } = allowed;
    assert.equal(typeof seq, 'number');
    assert.deepEqual(fields, { kind: 'connection', ts: new Date(start + 2000).toISOString(), host: 'files.example.org', dst_ip: '198.51.100.23', dst_port: 443, protocol: 'tcp', verdict: 'allowed', match_rule: 'domain', rule: '*.example.org', bytes_sent: 812, bytes_recv: 40_211, duration_ms: 12 });
    assert.deepEqual([blocked.host, blocked.reason, blocked.count], [undefined, 'no', 4]);
    const second = (await call('GET', `/sandboxes/${id}/network?limit=2&before=${first.next_cursor}`)).json;
    assert.deepEqual([second.data.length, second.next_cursor, second.has_more], [2, null, false]);
    assert.equal((await call('GET', `/sandboxes/${id}/network?since=${new Date(start + 1000).toISOString()}&before=${new Date(start + 3000).toISOString()}`)).json.data.length, 2);
    assert.equal((await call('GET', `/sandboxes/${id}/network?verdict=blocked`)).json.data.length, 1);
    for (const query of ['limit=0', 'limit=1001', 'since=yesterday', 'before=x', 'verdict=maybe', 'since=2026-13-45T00:00:00Z']) assert.equal((await call('GET', `/sandboxes/${id}/network?${query}`)).status, 400, query);
  });

  test('the audit trail has the names of the contract', async () => {
    const { id, uuid } = await create();
    await core.host.connected(connection(uuid), connection(uuid, { verdict: 'blocked', host: null }));
    await call('DELETE', `/sandboxes/${id}`);
    const entries = async (): Promise<any[]> => (await call('GET', `/sandboxes/${id}/audit`)).json.entries;
    await until('the end is recorded', async () => (await entries()).length === 4);
    const found = await entries();
    assert.deepEqual(found.map((each) => each.event), ['vm_created', 'egress_allowed', 'egress_blocked', 'vm_killed']);
    const { timestamp, detail, ...egress } = found[2];
    assert.ok(!Number.isNaN(Date.parse(timestamp)) && detail.address === '198.51.100.23');
    assert.deepEqual(egress, { category: 'network', event: 'egress_blocked', method: 'CONNECT', url: '198.51.100.23:443', status_code: 403, direction: 'outbound', pii_redactions: 0, injection_blocks: 0, transformations_applied: 0 });
  });

  describe('a port by host name', () => {
    const host = (id: string, port = 3000): Record<string, string> => ({ host: `${port}-${id.slice(4)}.Box.Example:7070` });

    test('is reached with the key or the token, with the whole path, and sees neither', async () => {
      const { id, token } = await create({ network: { mask_request_host: 'app.example:${PORT}' } });
      for (const headers of [{ authorization: `Bearer ${key}` }, { 'x-api-key': key }, { 'x-traffic-access-token': token }]) {
        const { status, json } = await call('GET', '/sandboxes/x/ports/1?q', { key: null, headers: { ...host(id), ...(headers as Record<string, string>) } });
        assert.deepEqual([status, json.url, json.headers.host], [200, '/sandboxes/x/ports/1?q', 'app.example:3000']);
        assert.ok(!JSON.stringify(json.headers).includes(key) && !JSON.stringify(json.headers).includes(token));
        assert.equal(json.headers['x-forwarded-prefix'], undefined);
      }
    });

    test('is closed without either, with those of others, and where there is no sandbox', async () => {
      const { id, token } = await create();
      const { token: other } = await create();
      const status = async (headers: Record<string, string>): Promise<number> => (await call('GET', '/', { key: null, headers })).status;
      assert.equal(await status(host(id)), 401);
      assert.equal(await status({ ...host(id), 'x-traffic-access-token': other }), 401);
      assert.equal(await status({ ...host('sbx-nobody00'), 'x-traffic-access-token': token }), 401);
      assert.equal(await status({ ...host('sbx-nobody00'), 'x-api-key': key }), 404);
      assert.equal(await status({ ...host(id, 99_999), 'x-api-key': key }), 400);
      assert.equal(await status({ ...host(id, 49_983), 'x-api-key': key }), 403);
      const closed = await create({ network: { allow_public_traffic: false } });
      assert.equal(await status({ ...host(closed.id), 'x-traffic-access-token': closed.token }), 403);
      assert.equal(await status({ host: 'box.example', 'x-api-key': key }), 404);
    });

    test('is reached by WebSocket too', async () => {
      const { id, token } = await create();
      const socket = new WebSocket(`ws://127.0.0.1:${url.port}/chat`, { headers: { ...host(id), 'x-traffic-access-token': token } });
      const [message] = await new Promise<[Buffer]>((resolve, reject) => {
        socket.on('message', (data: Buffer) => resolve([data]));
        socket.on('error', reject);
      });
      assert.equal(String(message), 'localhost:3000');
      socket.terminate();
    });
  });

  test('by path the token opens the same ports, and a key beside a wrong token still does', async () => {
    const { id, token } = await create();
    const status = async (headers: Record<string, string>): Promise<number> => (await call('GET', `/sandboxes/${id}/ports/3000/`, { key: null, headers })).status;
    assert.equal(await status({ 'x-traffic-access-token': token }), 200);
    assert.equal(await status({ 'x-traffic-access-token': 'traffic-wrong' }), 401);
    assert.equal(await status({ 'x-traffic-access-token': 'traffic-wrong', 'x-api-key': key }), 200);
    assert.equal((await call('GET', `/sandboxes/${id}`, { key: null, headers: { 'x-traffic-access-token': token } })).status, 401);
  });
});
