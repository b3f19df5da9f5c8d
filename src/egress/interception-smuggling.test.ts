import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { SecretWorld, standIn } from './testing/secret-world.ts';

// Requests that two readers could read in two ways, and floods of what the protocols allow.

let world: SecretWorld;
const bearer = { Authorization: `Bearer ${standIn}` };

before(async () => {
  world = await SecretWorld.open();
});
after(() => world.close());
beforeEach(async () => {
  world.seen.length = 0;
  await world.admit([world.binding()]);
});

const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: api.example\r\n\r\n';
const ambiguous: [string, string][] = [
  ['CL.TE', `POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`],
  ['TE.CL', `POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n${smuggled}0\r\n\r\n`],
  ['TE.TE', `POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n${smuggled}`],
  ['an obscured TE', `POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${smuggled}`],
  ['a TE with a space', `POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n${smuggled}`],
  ['two lengths', `POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 0\r\nContent-Length: 6\r\n\r\n${smuggled}`],
  ['a length with a sign', `POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: +6\r\n\r\n${smuggled}`],
  ['a list of lengths', `POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 6, 6\r\n\r\n${smuggled}`],
  ['a folded header', `GET / HTTP/1.1\r\nHost: api.example\r\nX-A: b\r\n Content-Length: 6\r\n\r\n${smuggled}`],
  ['a bare line feed', `GET / HTTP/1.1\nHost: api.example\n\n${smuggled}`],
  ['a chunk that ends with a bare line feed', `POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n1\nA\n0\n\n${smuggled}`],
  ['a size that is none', `POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nA\r\n0\r\n\r\n${smuggled}`],
  ['a line feed in a chunk extension', `POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nb\r\nA\r\n0\r\n\r\n${smuggled}`],
  ['two hosts', 'GET / HTTP/1.1\r\nHost: api.example\r\nHost: other.example\r\n\r\n'],
  ['no host', 'GET / HTTP/1.1\r\nX: y\r\n\r\n'],
];
for (const [what, bytes] of ambiguous) {
  test(`smuggling, ${what}: refused, and the server sees no second request`, async () => {
    const said = await world.converse('api.example', bytes, { ms: 700 });
    assert.match(said, /^(HTTP\/1\.1 4\d\d |\|)/);
    assert.ok(world.seen.every((seen) => seen.url !== '/smuggled'), JSON.stringify(world.seen));
  });
}

test('smuggling with chunk extensions: the request is written anew without them', async () => {
  await world.converse('api.example', `POST /ext HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nA\r\n0\r\n\r\n`);
  assert.deepEqual(world.seen.map((seen) => [seen.url, seen.body]), [['/ext', 'A']]);
});

/** Frames of HTTP/2 by hand, since no client sends them. */
const frame2 = (type: number, flags: number, stream: number, payload: Buffer): Buffer => Buffer.concat([Buffer.from([payload.length >> 16, (payload.length >> 8) & 255, payload.length & 255, type, flags, 0, 0, 0, stream]), payload]);
const literal = (name: string, value: string): Buffer => Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([value.length]), Buffer.from(value, 'latin1')]);
const opening = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame2(4, 0, 0, Buffer.alloc(0))]);
const [endStream, endHeaders] = [1, 4];
const post = (...more: Buffer[]): Buffer => Buffer.concat([Buffer.from([0x83, 0x87]), literal(':path', '/two'), literal(':authority', 'api.example'), ...more]);

const smugglers: [string, Buffer, string][] = [
  ['a Transfer-Encoding', post(literal('transfer-encoding', 'chunked')), `0\r\n\r\n${smuggled}`],
  ['a length that is too short', post(literal('content-length', '3')), `abc${smuggled}`],
  ['a length that is too long', post(literal('content-length', '300')), 'abc'],
  ['two lengths', post(literal('content-length', '3'), literal('content-length', '60')), 'abc'],
  ['a line break in a value', post(literal('x-a', `b\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled.slice(0, 20)}`)), ''],
  ['a line break in a name', post(literal('x\r\nhost', 'other.example')), ''],
  ['a line break in the path', Buffer.concat([Buffer.from([0x82, 0x87]), literal(':path', '/ HTTP/1.1\r\nX: y'), literal(':authority', 'api.example')]), ''],
  ['a space in the method', Buffer.concat([Buffer.from([0x87]), literal(':method', 'GET /smuggled'), literal(':path', '/two'), literal(':authority', 'api.example')]), ''],
  ['two authorities', post(literal(':authority', 'other.example')), ''],
  ['another host', post(literal('host', 'other.example')), ''],
  ['a Connection', post(literal('connection', 'authorization')), ''],
  ['another scheme', Buffer.concat([Buffer.from([0x82, 0x86]), literal(':path', '/two'), literal(':authority', 'api.example')]), ''],
];
for (const [what, head, body] of smugglers) {
  test(`smuggling from HTTP/2, ${what}: nothing arrives`, async () => {
    await world.converse('api.example', Buffer.concat([opening, frame2(1, endHeaders, 1, head), frame2(0, endStream, 1, Buffer.from(body))]).toString('latin1'), { protocols: ['h2'], ms: 300 });
    // Fields that are none are left out; what is left is one request that is what it seems.
    const arrived = what.startsWith('a line break in a ') ? world.seen.filter((seen) => seen.url !== '/two' || seen.body !== '' || /smuggled|x-a|encoding|other/.test(JSON.stringify(seen))) : world.seen;
    assert.deepEqual(arrived, []);
  });
}

test('a flood of resets over HTTP/2 ends its connection, and no other', async () => {
  const head = Buffer.concat([Buffer.from([0x82, 0x87, 0x84]), literal(':authority', 'api.example')]);
  const flood = await world.guest.run<{ outcome: string; sent: number }>(
    `return new Promise((resolve) => { const frame = (type, flags, stream, payload) => { const f = Buffer.alloc(9 + payload.length); f.writeUIntBE(payload.length, 0, 3); f[3] = type; f[4] = flags; f.writeUInt32BE(stream, 5); payload.copy(f, 9); return f; };
      const head = Buffer.from(args.head, 'latin1'); let id = -1, sent = 0; const s = tls.connect({ host: 'api.example', port: 443, servername: 'api.example', ca: args.ca, lookup, ALPNProtocols: ['h2'] }, () => { s.write(Buffer.from(args.opening, 'latin1')); more(); });
      const more = () => { const frames = []; for (let i = 0; i < 50; i++) { id += 2; sent++; frames.push(frame(1, 5, id, head), frame(3, 0, id, Buffer.from([0, 0, 0, 8]))); } s.write(Buffer.concat(frames)); if (sent < 20000) setTimeout(more, 1); else resolve({ outcome: 'took all', sent }); };
      s.on('error', (e) => resolve({ outcome: e.code, sent })).on('end', () => resolve({ outcome: 'end', sent })).on('close', () => resolve({ outcome: 'closed', sent })); s.resume(); setTimeout(() => resolve({ outcome: 'timeout', sent }), 8000); })`,
    { ca: world.authority.certificate, head: head.toString('latin1'), opening: opening.toString('latin1') },
  );
  assert.match(flood.outcome, /^(E[A-Z]+|closed|end)$/, JSON.stringify(flood));
  assert.ok(world.seen.length < 500, `${world.seen.length} arrived`);
  assert.equal((await world.fetch('https://api.example/', { headers: bearer })).status, 200);
});

test('a flood of continuations over HTTP/2 ends its connection', async () => {
  const said = await world.guest.run<string>(
    `return new Promise((resolve) => { const s = tls.connect({ host: 'api.example', port: 443, servername: 'api.example', ca: args.ca, lookup, ALPNProtocols: ['h2'] }, () => {
      s.write('PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n'); s.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])); s.write(Buffer.from([0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]));
      const block = Buffer.concat([Buffer.from([0, 0x3f, 0xfc, 9, 0, 0, 0, 0, 1]), Buffer.alloc(0x3ffc, 0x82)]); let sent = 0;
      const more = () => { while (sent++ < 2000) if (!s.write(block)) return s.once('drain', more); resolve('took all'); }; more(); });
      s.on('error', (e) => resolve(e.code)).on('close', () => resolve('closed')).on('end', () => resolve('end')); s.resume(); setTimeout(() => resolve('timeout'), 8000); })`,
    { ca: world.authority.certificate },
  );
  assert.match(said, /^(E[A-Z]+|closed|end)$/);
});
