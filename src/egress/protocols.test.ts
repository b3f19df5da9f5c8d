import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { WebSocketServer } from 'ws';
import { type LabGuest, Laboratory } from './testing/laboratory.ts';

// What a sandbox may do works as if nothing were in between: once without rules, where bytes are spliced, and once with rules about names, where plain HTTP is parsed.

let lab: Laboratory;
let guest: LabGuest;
const cases = [
  { how: 'without rules', rules: {} },
  { how: 'with rules about names', rules: { allow: ['good.example'] } },
];
const block = Buffer.alloc(1 << 20, 'paddock ');

before(async () => {
  lab = await Laboratory.open(1);
  [guest] = lab.guests as [LabGuest];
  lab.name('good.example', lab.host(10));
  const web = createServer((request, response) => {
    const { url = '/' } = request;
    if (url === '/events') {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      let n = 0;
      const timer = setInterval(() => (n++ < 3 ? response.write(`data: ${n}\n\n`) : (clearInterval(timer), response.end())), 50);
    } else if (url.startsWith('/download/')) {
      const total = Number(url.slice('/download/'.length));
      response.writeHead(200, { 'Content-Length': total * block.length });
      let sent = 0;
      const more = (): void => {
        while (sent < total) if (!response.write(block, () => {}) && ++sent < total) return void response.once('drain', more);
        else if (sent === total) break;
        response.end();
      };
      more();
    } else if (url === '/trailers') {
      response.writeHead(200, { Trailer: 'X-Sum', 'Transfer-Encoding': 'chunked' });
      response.write('body');
      response.addTrailers({ 'X-Sum': '42' });
      response.end();
    } else if (url === '/headers') {
      response.writeHead(203, 'Odd Reason', [['Set-Cookie', 'a=1'], ['Set-Cookie', 'b=2'], ['X-Seen', request.rawHeaders.join('|')]] as never);
      response.end('{}');
    } else {
      const hash = createHash('sha256');
      let size = 0;
      request.on('data', (chunk: Buffer) => {
        hash.update(chunk);
        size += chunk.length;
      });
      request.on('end', () => response.end(`${request.method} ${url} ${size} ${hash.digest('hex').slice(0, 8)} ${request.trailers['x-sum'] ?? ''}`));
    }
  });
  const sockets = new WebSocketServer({ server: web });
  sockets.on('connection', (socket) => socket.on('message', (data) => socket.send(`echo ${String(data)}`)));
  await new Promise<void>((resolve) => web.listen(lab.listen(80), resolve));
  lab.keep(web);
});
after(() => lab.close());

for (const { how, rules } of cases) {
  test(`${how}: requests with bodies, keep-alive, headers as they were`, async () => {
    await lab.admit(guest, rules);
    const said = await guest.run<{ status: number; headers: Record<string, unknown>; body: string }>(`const agent = new http.Agent({ keepAlive: true, maxSockets: 1 }); const first = await fetchText('http://good.example/one?x=1', { agent, method: 'PUT', body: 'abc' }); const second = await fetchText('http://good.example/headers', { agent, headers: { 'X-MiXed': 'Ü'.normalize() && 'u' } }); agent.destroy(); return { ...second, body: first.body }`);
    assert.match(said.body, /^PUT \/one\?x=1 3 ba7816bf/);
    assert.deepEqual([said.status, said.headers['set-cookie']], [203, ['a=1', 'b=2']]);
    assert.match(String(said.headers['x-seen']), /X-MiXed\|u/);
  });

  test(`${how}: a chunked upload with trailers, and an answer with trailers`, async () => {
    const [up, down] = await guest.run<[string, Record<string, string>]>(`
      const up = await new Promise((resolve, reject) => { const r = http.request('http://good.example/up', { lookup, method: 'POST', headers: { Trailer: 'X-Sum', 'Transfer-Encoding': 'chunked' } }, (res) => { let b = ''; res.on('data', (d) => b += d).on('end', () => resolve(b)); }); r.on('error', reject); r.write('x'.repeat(100000)); r.addTrailers({ 'X-Sum': '7' }); r.end(); });
      const down = await fetchText('http://good.example/trailers'); return [up, down.trailers];`);
    assert.match(up, /^POST \/up 100000 [0-9a-f]{8} 7$/);
    assert.equal(down['x-sum'], '42');
  });

  test(`${how}: 100-continue, HEAD and an empty POST`, async () => {
    const said = await guest.run<string[]>(`
      const continued = await new Promise((resolve, reject) => { let asked = false; const r = http.request('http://good.example/c', { lookup, method: 'POST', headers: { Expect: '100-continue', 'Content-Length': 4 } }, (res) => { let b = ''; res.on('data', (d) => b += d).on('end', () => resolve(asked + ' ' + b)); }); r.on('continue', () => { asked = true; r.end('body'); }); r.on('error', reject); r.flushHeaders(); });
      const head = await fetchText('http://good.example/h', { method: 'HEAD' }); const empty = await converse('good.example', 80, 'POST /e HTTP/1.1\\r\\nHost: good.example\\r\\nConnection: close\\r\\n\\r\\n');
      return [continued, head.status + head.body, empty];`);
    assert.match(said[0]!, /^true POST \/c 4/);
    assert.equal(said[1], '200');
    assert.match(said[2]!, /POST \/e 0 /);
  });

  test(`${how}: server-sent events arrive one by one`, async () => {
    const times = await guest.run<number[]>(`return new Promise((resolve, reject) => http.get('http://good.example/events', { lookup }, (res) => { const at = []; res.on('data', () => at.push(performance.now())).on('end', () => resolve(at)); }).on('error', reject))`);
    assert.equal(times.length, 3);
    assert.ok(times[2]! - times[0]! > 60, 'they were not gathered');
  });

  test(`${how}: a WebSocket`, async () => {
    assert.equal(await guest.run(`return new Promise((resolve, reject) => { const s = net.connect({ host: 'good.example', port: 80, lookup }, () => s.write('GET /ws HTTP/1.1\\r\\nHost: good.example\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n')); let got = ''; s.on('data', (d) => { got += d.toString('latin1'); if (/101 Switching[^]*\\r\\n\\r\\n$/.test(got)) s.write(Buffer.from([0x81, 0x82, 0, 0, 0, 0, 104, 105])); if (got.endsWith('echo hi')) { s.destroy(); resolve('echo hi'); } }).on('error', reject); setTimeout(() => resolve(got), 3000).unref(); })`), 'echo hi');
  });

  test(`${how}: a download of 500 MB, in memory that does not grow with it`, async () => {
    const before = (await lab.control.request({ op: 'stats' }))['memoryBytes'] as number;
    const { size, ms } = await guest.run<{ size: number; ms: number }>(`const started = performance.now(); return new Promise((resolve, reject) => http.get('http://good.example/download/500', { lookup }, (res) => { let size = 0; res.on('data', (d) => size += d.length).on('end', () => resolve({ size, ms: performance.now() - started })).on('error', reject); }).on('error', reject))`);
    assert.equal(size, 500 << 20);
    const grown = ((await lab.control.request({ op: 'stats' }))['memoryBytes'] as number) - before;
    assert.ok(grown < 150 << 20, `grew by ${grown >> 20} MiB`);
    console.log(`${how}: ${Math.round((500 / ms) * 1000)} MB/s, memory +${grown >> 20} MiB`);
  });

  test(`${how}: 200 requests at once`, async () => {
    const codes = await guest.run<number[]>(`return Promise.all(Array.from({ length: 200 }, (_, i) => fetchText('http://good.example/' + i).then((r) => r.status)))`);
    assert.deepEqual(codes, Array.from({ length: 200 }, () => 200));
  });

  test(`${how}: a slow reader holds the server back, not memory`, async () => {
    const before = (await lab.control.request({ op: 'stats' }))['memoryBytes'] as number;
    await guest.run(`return new Promise((resolve) => { const s = net.connect({ host: 'good.example', port: 80, lookup }, () => { s.write('GET /download/300 HTTP/1.1\\r\\nHost: good.example\\r\\n\\r\\n'); s.pause(); setTimeout(() => { s.destroy(); resolve(); }, 800); }); })`);
    const grown = ((await lab.control.request({ op: 'stats' }))['memoryBytes'] as number) - before;
    assert.ok(grown < 100 << 20, `grew by ${grown >> 20} MiB`);
  });
}
