import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { InvalidArgumentError, NotFoundError } from '@declaw/sdk';
import { output, sandboxOfThisFile } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { within } from '../harness/wait.ts';

const server = serverOfThisFile();
const sandbox = sandboxOfThisFile();
const files = () => sandbox().files;
const at = (path: string): string => `/sandboxes/${sandbox().sandboxId}/files${path}`;
const query = (path: string): string => `path=${encodeURIComponent(path)}`;

/** Names that go wrong where somebody builds a path or a query by hand. */
const awkwardNames = ['with space', 'plus+and&and=and?and#', '100%25', 'grüße', '日本', '🦊', 'new\nline', '"quoted" \'twice\'', '-rf', 'back\\slash', '..hidden..', 'semi;colon', '$(id)', 'x'.repeat(255)];

test('text is written and read back, with the size in bytes', async () => {
  const content = 'grüße\n日本 🦊\n\ttabs "quotes" \\ \u0000 end';
  assert.deepEqual(await files().write('/home/user/text', content), { path: '/home/user/text', size: Buffer.byteLength(content) });
  assert.equal(await files().read('/home/user/text'), content);
  await files().write('/home/user/text', 'shorter');
  assert.equal(await files().read('/home/user/text'), 'shorter');
});

test('bytes are exact, over every endpoint that carries them', async () => {
  const bytes = new Uint8Array(randomBytes(300_000));
  bytes.set(Array.from({ length: 256 }, (_, i) => i));
  assert.deepEqual(await files().write('/tmp/bytes', bytes), { path: '/tmp/bytes', size: bytes.length });
  assert.deepEqual(await files().read('/tmp/bytes', { format: 'bytes' }), bytes);
  for (const path of [`?${query('/tmp/bytes')}`, `/raw?${query('/tmp/bytes')}`]) {
    const answer = await server.call('GET', at(path));
    assert.equal(answer.headers['content-length'], String(bytes.length));
    assert.ok(answer.bytes.equals(bytes), path);
  }
  await files().write('/tmp/json', '{ "a" :  1 }\n');
  assert.equal((await server.call('GET', at(`?${query('/tmp/json')}`))).text, '{ "a" :  1 }\n');
  await files().write('/tmp/empty', new Uint8Array());
  const empty = await server.call('GET', at(`?${query('/tmp/empty')}`));
  assert.deepEqual([empty.status, empty.bytes.length], [200, 0]);
  assert.equal((await files().getInfo('/tmp/empty')).size, 0);
});

test('the URLs of downloadUrl and uploadUrl work with the API key', async () => {
  const authorization = { authorization: `Bearer ${server.apiKey}` };
  const uploaded = await fetch(sandbox().uploadUrl('/tmp/a file +&'), { method: 'PUT', headers: authorization, body: 'over fetch' });
  assert.deepEqual(await uploaded.json(), { path: '/tmp/a file +&', size: 10 });
  const downloaded = await fetch(sandbox().downloadUrl('/tmp/a file +&'), { headers: authorization });
  assert.equal(await downloaded.text(), 'over fetch');
  assert.equal((await fetch(sandbox().downloadUrl('/tmp/a file +&'))).status, 401);
});

test('awkward names survive every call', async () => {
  for (const name of awkwardNames) {
    const path = `/tmp/names/${name}`;
    await files().write(path, name);
    assert.equal(await files().read(path), name);
    assert.equal(await files().exists(path), true, name);
    assert.deepEqual(await files().getInfo(path), { name, path, type: 'file', size: Buffer.byteLength(name) });
    const bytes = new TextEncoder().encode(name);
    await files().write(path, bytes);
    assert.deepEqual(await files().read(path, { format: 'bytes' }), bytes);
  }
  const listed = (await files().list('/tmp/names')).map((each) => each.name);
  assert.deepEqual(listed.toSorted(), awkwardNames.toSorted());
  for (const name of awkwardNames) {
    await files().rename(`/tmp/names/${name}`, `/tmp/names/moved`);
    await files().remove('/tmp/names/moved');
  }
  assert.deepEqual(await files().list('/tmp/names'), []);
});

test('files belong to the user asked for, also at the root of the file system, and parents are made', async () => {
  await files().write('/test.txt', 'root level');
  await files().write('/batch/deep/er/a.txt', 'a');
  await files().write('/root/secret', 's', { user: 'root' });
  assert.equal(await output(sandbox(), 'stat -c "%U:%G %n" /test.txt /batch /batch/deep /batch/deep/er/a.txt'), 'user:user /test.txt\nuser:user /batch\nuser:user /batch/deep\nuser:user /batch/deep/er/a.txt\n');
  assert.equal(await output(sandbox(), 'stat -c %U:%G /root/secret', { user: 'root' }), 'root:root\n');
  await assert.rejects(files().write('/tmp/x', 'x', { user: 'nobody-here' }), (error) => error instanceof InvalidArgumentError && /nobody-here/.test(error.message));
});

test('relative paths start in the home directory of the user', async () => {
  assert.equal((await files().write('relative.txt', 'r')).path, '/home/user/relative.txt');
  assert.equal(await files().read('/home/user/relative.txt'), 'r');
  assert.equal((await files().write('r', 'r', { user: 'root' })).path, '/root/r');
});

test('an existing file keeps its mode, and what reads it sees the old or the new, never half', async () => {
  await output(sandbox(), 'echo "#!/bin/sh" > script; chmod 751 script');
  await files().write('/home/user/script', '#!/bin/sh\necho ran\n');
  assert.equal(await output(sandbox(), 'stat -c %a script; ./script'), '751\nran\n');
});

test('a batch writes all its files and answers in order', async () => {
  const entries = Array.from({ length: 40 }, (_, i) => ({ path: `/tmp/batch/${i % 4}/${i}.txt`, data: i % 7 === 0 ? new TextEncoder().encode(`bytes ${i}`) : `text ${i}` }));
  const written = await files().writeFiles(entries);
  assert.deepEqual(written, entries.map(({ path, data }) => ({ path, size: data.length })));
  assert.equal(await output(sandbox(), 'cat /tmp/batch/*/*.txt | wc -c'), `${entries.reduce((sum, { data }) => sum + data.length, 0)}\n`);
  const raw = await server.call('POST', at('/batch'), { json: { files: [{ path: '/tmp/of-root', data: 'x', username: 'root' }, { path: '/tmp/of-user', data: 'y' }] } });
  assert.deepEqual(raw.json, [{ path: '/tmp/of-root', size: 1 }, { path: '/tmp/of-user', size: 1 }]);
  assert.equal(await output(sandbox(), 'stat -c %U /tmp/of-root /tmp/of-user'), 'root\nuser\n');
});

test('a listing goes as deep as asked', async () => {
  await output(sandbox(), 'mkdir -p tree/a/b/c && touch tree/f tree/a/g tree/a/b/h tree/a/b/c/i');
  const paths = async (depth?: number): Promise<string[]> => (await files().list('/home/user/tree', depth === undefined ? {} : { depth })).map((each) => each.path.slice('/home/user/tree/'.length)).toSorted();
  assert.deepEqual(await paths(), ['a', 'f']);
  assert.deepEqual(await paths(1), ['a', 'f']);
  assert.deepEqual(await paths(2), ['a', 'a/b', 'a/g', 'f']);
  assert.deepEqual(await paths(10), ['a', 'a/b', 'a/b/c', 'a/b/c/i', 'a/b/h', 'a/g', 'f']);
  const types = Object.fromEntries((await files().list('/home/user/tree')).map((each) => [each.name, each.type]));
  assert.deepEqual(types, { a: 'dir', f: 'file' });
  assert.deepEqual(await files().list('/not/there'), []);
});

test('what is missing is 404 where it was asked for, and no error where it was to go', async () => {
  await assert.rejects(files().read('/not/there'), NotFoundError);
  await assert.rejects(files().getInfo('/not/there'), (error) => error instanceof NotFoundError && /\/not\/there/.test(error.message));
  await assert.rejects(files().rename('/not/there', '/tmp/x'), NotFoundError);
  await assert.rejects(files().watchDir('/not/there'), NotFoundError);
  assert.equal(await files().exists('/not/there'), false);
  assert.deepEqual((await server.call('DELETE', at(`?${query('/not/there')}`))).json, {});
});

test('a directory is no file, and a file no directory', async () => {
  await assert.rejects(files().read('/tmp'), InvalidArgumentError);
  await assert.rejects(files().write('/tmp', 'x'), InvalidArgumentError);
  await files().write('/tmp/plain', 'x');
  await assert.rejects(files().write('/tmp/plain/below', 'x'), InvalidArgumentError);
  await assert.rejects(files().list('/tmp/plain'), InvalidArgumentError);
});

test('mkdir says true once, renaming moves, removing is recursive', async () => {
  assert.equal(await files().makeDir('/tmp/new/deep'), true);
  assert.equal(await files().makeDir('/tmp/new/deep'), false);
  await files().write('/tmp/new/deep/f', 'moved');
  assert.deepEqual(await files().rename('/tmp/new/deep', '/tmp/elsewhere/deep2'), { name: 'deep2', path: '/tmp/elsewhere/deep2', type: 'dir', size: (await files().getInfo('/tmp/elsewhere/deep2')).size });
  assert.equal(await files().read('/tmp/elsewhere/deep2/f'), 'moved');
  assert.equal(await files().exists('/tmp/new/deep'), false);
  await files().remove('/tmp/elsewhere');
  assert.equal(await files().exists('/tmp/elsewhere'), false);
  assert.deepEqual((await files().watchDir('/tmp')).getNewEvents(), []);
});

test('symbolic links are followed, except by what removes or renames', async () => {
  await output(sandbox(), 'mkdir -p links && cd links && echo target > t && ln -s t soft && ln -s /nowhere dangling && ln -s loop loop && ln -s .. up');
  assert.equal(await files().read('/home/user/links/soft'), 'target\n');
  await files().write('/home/user/links/soft', 'through');
  assert.equal(await output(sandbox(), 'cd links; cat t; readlink soft'), 'throught\n');
  await assert.rejects(files().read('/home/user/links/dangling'), NotFoundError);
  const loop = await within(10_000, 'a symbolic link to itself', server.call('GET', at(`?${query('/home/user/links/loop')}`)));
  assert.ok(loop.status >= 400 && loop.status < 500);
  assert.equal((await within(10_000, 'a listing through a loop', files().list('/home/user/links', { depth: 20 }))).length, 5);
  await files().rename('/home/user/links/soft', '/home/user/links/renamed');
  assert.equal(await output(sandbox(), 'readlink links/renamed'), 't\n');
  await files().remove('/home/user/links/renamed');
  await files().remove('/home/user/links/up');
  assert.equal(await output(sandbox(), 'cat links/t'), 'through');
});

test('devices, FIFOs and sockets are refused, not hung on', async () => {
  await output(sandbox(), 'mkfifo /tmp/fifo; python3 -c pass 2>/dev/null; true');
  await sandbox().commands.run('mknod /tmp/socket-like c 1 5', { user: 'root' });
  for (const path of ['/tmp/fifo', '/dev/zero', '/dev/urandom', '/dev/null', '/dev/tty']) {
    await within(10_000, `reading ${path}`, assert.rejects(files().read(path, { format: 'bytes' }), InvalidArgumentError, path));
    await within(10_000, `writing ${path}`, assert.rejects(files().write(path, 'x'), InvalidArgumentError, path));
  }
  assert.equal((await files().getInfo('/tmp/fifo')).name, 'fifo');
  assert.equal(await files().exists('/dev/zero'), true);
});

test('files of /proc are read to their end, whatever length they claim', async () => {
  assert.match(await files().read('/proc/version'), /^Linux version/);
  assert.match((await server.call('GET', at(`/raw?${query('/proc/self/status')}`))).text, /^Name:/);
});

test('the root of the file system cannot be removed, and paths with NUL are refused', async () => {
  const root = await server.call('DELETE', at(`?${query('/')}`));
  assert.ok(root.status === 400 || root.status === 403, `status ${root.status}`);
  assert.equal(await files().exists('/bin/bash'), true);
  for (const path of ['/tmp/a%00b', '']) assert.equal((await server.call('GET', at(`?path=${path}`))).status, 400);
  assert.equal((await server.call('GET', at('?username=user'))).status, 400);
  assert.equal((await server.call('POST', at(''), { json: { path: '/tmp/a\0b', data: '' } })).status, 400);
});

test('64 MiB go in and come out with the same digest', async () => {
  const bytes = new Uint8Array(randomBytes(64 * 1024 * 1024));
  const digest = createHash('sha256').update(bytes).digest('hex');
  assert.equal((await files().write('/home/user/64m', bytes)).size, bytes.length);
  assert.match(await output(sandbox(), 'sha256sum 64m'), new RegExp(`^${digest} `));
  assert.equal(createHash('sha256').update(await files().read('/home/user/64m', { format: 'bytes' })).digest('hex'), digest);
});
