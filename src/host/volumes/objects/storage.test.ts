import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { after, afterEach, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { archive } from '../../../../test/harness/archives.ts';
import type { AskedObject, Fate } from '../../../../test/harness/object-store-front.ts';
import { TestObjectStore } from '../../../../test/harness/object-store.ts';
import { eventually } from '../../../../test/harness/wait.ts';
import { newVolumeId, type VolumeId } from '../../../core/ids.ts';
import { silentLog } from '../../log.ts';
import { chunkBytes } from './chunks.ts';
import { openObjectVolumes } from './open.ts';
import type { ObjectVolumes } from './storage.ts';

const never = new AbortController().signal;
const store = await TestObjectStore.open();
const opened: ObjectVolumes[] = [];
/** A server's volumes, as after a start of it. */
async function open(attemptMs = 500): Promise<ObjectVolumes> {
  const storage = await openObjectVolumes({ ...store.options, attemptMs }, 'p/', 'this test', silentLog);
  opened.push(storage);
  return storage;
}
after(async () => {
  for (const each of opened) await each.close();
  await store[Symbol.asyncDispose]();
});
afterEach(() => {
  store.front.fate = () => 'pass';
});

async function write(storage: ObjectVolumes, id: VolumeId, path: readonly string[], body: string | Buffer): Promise<void> {
  await using file = await storage.receive(id, Buffer.from(body), { durable: true });
  await storage.put(id, path, file);
}

async function read(storage: ObjectVolumes, id: VolumeId, path: readonly string[]): Promise<Buffer> {
  return Buffer.concat(await (await storage.get(id, path)).body.toArray());
}

async function made(storage: ObjectVolumes): Promise<VolumeId> {
  const id = newVolumeId();
  await storage.create(id);
  return id;
}

const objectsOf = (id: VolumeId): readonly string[] => store.objects.filter((name) => name.includes(id));
const chunksOf = (id: VolumeId): readonly string[] => objectsOf(id).filter((name) => name.includes('/chunks/'));
const onManifest = (fate: Fate) => ({ method, path }: AskedObject): Fate => (method === 'PUT' && path.includes('/manifest') ? fate : 'pass');
const onChunks = (fate: Fate) => ({ method, path }: AskedObject): Fate => (method === 'PUT' && path.includes('/chunks/') ? fate : 'pass');

describe('what goes wrong between the server and the store', async () => {
  const storage = await open();

  test('a file lies in chunks, comes back as it was, and leaves none of them when it goes', async () => {
    const id = await made(storage);
    const big = Buffer.alloc(2 * chunkBytes + 12_345, 'chunk');
    await write(storage, id, ['big'], big);
    assert.equal(chunksOf(id).length, 3);
    assert.ok((await read(storage, id, ['big'])).equals(big));
    await write(storage, id, ['big'], 'small');
    await eventually(() => assert.equal(chunksOf(id).length, 1));
    await storage.remove(id, ['big'], false);
    await eventually(() => assert.equal(chunksOf(id).length, 0));
    await storage.discard(id);
    assert.deepEqual(objectsOf(id), []);
  });

  for (const fate of ['cut', 503, 403, 'hang'] as const) {
    test(`a manifest that cannot be written (${fate}): the file is the old one, now and after a start`, async () => {
      const id = await made(storage);
      await write(storage, id, ['f'], 'old');
      store.front.fate = onManifest(fate);
      await assert.rejects(write(storage, id, ['f'], 'new'), { code: 'no_capacity', message: /object store/ });
      await assert.rejects(storage.rename(id, ['f'], ['g']), { code: 'no_capacity' });
      await assert.rejects(storage.remove(id, ['f'], false), { code: 'no_capacity' });
      store.front.fate = () => 'pass';
      assert.equal((await read(storage, id, ['f'])).toString(), 'old');
      const next = await open();
      await next.sweep([id]);
      assert.equal((await read(next, id, ['f'])).toString(), 'old');
      await eventually(() => assert.equal(chunksOf(id).length, 1));
      await storage.discard(id);
    });
  }

  test('a manifest that is written without an answer counts: the change is there, and its chunks stay', async () => {
    const id = await made(storage);
    await write(storage, id, ['f'], 'old');
    for (const answers of [1, Number.POSITIVE_INFINITY]) {
      let asked = 0;
      store.front.fate = (request) => (request.method === 'PUT' && request.path.includes('/manifest') && asked++ < answers ? 'cut after' : 'pass');
      await write(storage, id, ['f'], `new ${answers}`);
      store.front.fate = () => 'pass';
      assert.equal((await read(storage, id, ['f'])).toString(), `new ${answers}`);
      assert.equal((await read(await open(), id, ['f'])).toString(), `new ${answers}`);
    }
    await eventually(() => assert.equal(chunksOf(id).length, 1));
  });

  test('a store that goes away in the middle of an upload: nothing half, and nothing left when it is back', async () => {
    const id = await made(storage);
    await write(storage, id, ['f'], 'old');
    let sent = 0;
    async function* body(): AsyncGenerator<Buffer> {
      for (; sent < 20; sent++) {
        if (sent === 6) store.front.fate = () => 'cut';
        yield Buffer.alloc(1_000_000, sent);
      }
    }
    await assert.rejects(storage.receive(id, Readable.from(body()), { durable: true }), { code: 'no_capacity' });
    assert.ok(sent < 20, 'the rest was taken all the same');
    store.front.fate = () => 'pass';
    assert.equal((await read(storage, id, ['f'])).toString(), 'old');
    const next = await open();
    await next.sweep([id]);
    await eventually(() => assert.deepEqual(store.objects.filter((name) => name.includes('/chunks/')), chunksOf(id)));
    assert.equal(chunksOf(id).length, 1);
  });

  test('an archive of which one file does not arrive is not there at all', async () => {
    const id = await made(storage);
    let count = 0;
    store.front.fate = (request) => (onChunks('cut')(request) === 'cut' && ++count > 10 ? 'cut' : 'pass');
    const entries = Array.from({ length: 40 }, (_, i) => ({ name: `d/f${i}`, data: `${i}` }));
    await assert.rejects(storage.unpack(id, Readable.from([archive(...entries)]), { bytes: 1000, entries: 100 }, never), { code: 'no_capacity' });
    store.front.fate = () => 'pass';
    assert.deepEqual(await storage.list(id, []), []);
    await storage.discard(id);
    assert.deepEqual(objectsOf(id), []);
  });

  test('a store that is slow, and fails now and then, loses nothing', async () => {
    const storage = await open(10_000);
    const id = await made(storage);
    let count = 0;
    store.front.fate = () => (count++ % 3 === 0 ? 503 : 'pass');
    await write(storage, id, ['f'], Buffer.alloc(3 * chunkBytes, 'x'));
    assert.equal((await read(storage, id, ['f'])).length, 3 * chunkBytes);
  });

  test('another server that writes to the same volume is noticed, and nothing of it is overwritten', async () => {
    const id = await made(storage);
    await write(storage, id, ['f'], 'mine');
    await write(await open(), id, ['other'], 'theirs');
    await assert.rejects(write(storage, id, ['f'], 'mine again'), { code: 'conflict', message: /another server/ });
    await write(storage, id, ['f'], 'mine at last');
    assert.deepEqual((await storage.list(id, [])).map(({ name }) => name), ['f', 'other']);
  });

  test('a volume whose removal fails is removed later, by the next start at the latest', async () => {
    const id = await made(storage);
    await write(storage, id, ['f'], 'x');
    store.front.fate = ({ method }) => (method === 'DELETE' ? 'cut' : 'pass');
    await storage.discard(id);
    assert.equal(objectsOf(id).length, 2);
    store.front.fate = () => 'pass';
    await (await open()).sweep([]);
    await eventually(() => assert.deepEqual(objectsOf(id), []));
  });
});

describe('what somebody has done to the bucket', async () => {
  const storage = await open();

  test('a chunk with other bytes is not given out, not even its beginning', async () => {
    const id = await made(storage);
    await write(storage, id, ['f'], 'the bytes');
    writeFileSync(store.fileOf(chunksOf(id)[0]!), 'the bytez');
    const { body } = await storage.get(id, ['f']);
    let seen = 0;
    body.on('data', ({ length }: Buffer) => (seen += length));
    const [error] = (await once(body, 'error')) as [Error];
    assert.match(error.message, /is not what was written/);
    assert.equal(seen, 0);
    rmSync(store.fileOf(chunksOf(id)[0]!));
    await assert.rejects(read(storage, id, ['f']), /is gone/);
    await assert.rejects(storage.pack(id, never).toArray(), /is gone/);
  });

  test('a chunk that is longer than it was is not read into memory', async () => {
    const id = await made(storage);
    await write(storage, id, ['f'], 'short');
    writeFileSync(store.fileOf(chunksOf(id)[0]!), Buffer.alloc(1_000_000));
    await assert.rejects(read(storage, id, ['f']), { code: 'no_capacity' });
  });

  const header = { format: 1, revision: 'r', bytes: 1, entries: 1, modifiedAt: 0, version: 'v' };
  for (const [what, lines] of [
    ['a chunk of another volume', [header, ['f', 420, 0, 'v', [['../../other/chunks/a', 1, 'x']]]]],
    ['a chunk with an escaped slash', [header, ['f', 420, 0, 'v', [['..%2fother', 1, 'x']]]]],
    ['a name that leads out', [header, ['../f', 420, 0, 'v', [['a-1', 1, 'x']]]]],
    ['an empty name', [header, ['d//f', 420, 0, 'v', [['a-1', 1, 'x']]]]],
    ['fewer files than it says', [{ ...header, entries: 2 }, ['f', 420, 0, 'v', [['a-1', 1, 'x']]]]],
    ['another format', [{ ...header, format: 2 }]],
  ] as const) {
    test(`a manifest with ${what} is not used`, async () => {
      const id = await made(storage);
      writeFileSync(store.fileOf(objectsOf(id)[0]!), gzipSync(`${lines.map((line) => JSON.stringify(line)).join('\n')}\n`));
      await assert.rejects((await open()).list(id, []), /manifest/);
    });
  }

  test('what is not ours is left alone by the sweep', async () => {
    const id = await made(storage);
    const neighbour = await openObjectVolumes(store.options, 'p2/', 'a neighbour', silentLog);
    opened.push(neighbour);
    const theirs = await made(neighbour);
    await write(neighbour, theirs, ['f'], 'theirs');
    const before = objectsOf(theirs);
    const foreign = ['p/readme', 'p/volumes/not-a-volume/x', `p/volumes/${id.toUpperCase()}/x`];
    for (const name of foreign) {
      const { Bucket } = await import('./bucket.ts');
      await new Bucket(store.options).put(name, Buffer.from('x'));
    }
    const next = await open();
    await next.sweep([]);
    await eventually(() => assert.deepEqual(objectsOf(id).filter((name) => name.includes(`/${id}/`)), []));
    assert.deepEqual(objectsOf(theirs), before);
    for (const name of foreign) assert.ok(store.objects.includes(name), name);
  });
});

describe('names and readers', async () => {
  const storage = await open();

  test('no name of a file is part of the name of an object, whatever it is', async () => {
    const [id, other] = [await made(storage), await made(storage)];
    await write(storage, other, ['secret'], 'of the other');
    const names = ['..%2f..%2f', '%2e%2e', '．．', '..\\..\\x', '\u2025', 'a\nb', 'a?versionId=1', '#', '&', '+', ' ', '~', '\u202Eevil', '💣', 'é', 'e\u0301', '__proto__', 'constructor', `${other}`, 'manifest', 'owner', '\ud800'];
    for (const name of names) {
      await write(storage, id, [name], name);
      await write(storage, id, ['d', name, name], name);
    }
    const next = await open();
    assert.deepEqual((await next.list(id, [])).map(({ name }) => name), ['d', ...names].sort());
    for (const name of names) assert.equal((await read(next, id, ['d', name, name])).toString(), Buffer.from(name).toString());
    for (const name of store.objects) assert.match(name, /^p2?\/(owner|readme|volumes\/[0-9a-zA-Z-]+\/(x|manifest|chunks\/[0-9a-z]+-[0-9a-z]+))$/);
    assert.equal((await read(next, other, ['secret'])).toString(), 'of the other');
  });

  test('a file that is replaced and removed while it is read is read to its end, as it was', async () => {
    const id = await made(storage);
    const old = Buffer.alloc(5 * chunkBytes, 'old');
    await write(storage, id, ['f'], old);
    const { body } = await storage.get(id, ['f']);
    const parts: Buffer[] = [];
    for await (const part of body as AsyncIterable<Buffer>) {
      parts.push(part);
      if (parts.length === 1) await write(storage, id, ['f'], 'new');
      if (parts.length === 2) await storage.remove(id, ['f'], false);
    }
    assert.ok(Buffer.concat(parts).equals(old));
    await eventually(() => assert.deepEqual(chunksOf(id), []));
  });

  test('a volume is packed as it was when that began, while it is changed', async () => {
    const id = await made(storage);
    for (let i = 0; i < 40; i++) await write(storage, id, [`f${i}`], Buffer.alloc(1000, i));
    const packed = storage.pack(id, never);
    const reading = packed.toArray() as Promise<Buffer[]>;
    await storage.remove(id, ['f39'], false);
    await reading;
    await eventually(() => assert.equal(chunksOf(id).length, 39));
  });

  test('a directory with much below it is renamed with one small write', async () => {
    const id = await made(storage);
    const entries = Array.from({ length: 200 }, (_, i) => ({ name: `d/e/f${i}`, data: `${i}` }));
    await storage.unpack(id, Readable.from([archive(...entries)]), { bytes: 10_000, entries: 1000 }, never);
    const before = store.front.asked.length;
    await storage.rename(id, ['d'], ['moved', 'here']);
    assert.deepEqual(store.front.asked.slice(before).map(({ method, path }) => [method, path.includes('/manifest')]), [['PUT', true]]);
    assert.equal((await read(storage, id, ['moved', 'here', 'e', 'f7'])).toString(), '7');
  });
});

describe('a start that cannot be', () => {
  const { options } = store;
  const cases: [what: string, options: Parameters<typeof openObjectVolumes>[0], message: RegExp][] = [
    ['no such bucket', { ...options, bucket: 'nowhere' }, /s3:\/\/nowhere\/p\/ cannot be used: there is no such bucket; make it first/],
    ['a wrong secret', { ...options, credentials: { ...options.credentials, secretAccessKey: 'hidden-secret' } }, /the secret key does not belong to the access key/],
    ['nobody there', { ...options, endpoint: 'http://127.0.0.1:1', attemptMs: 500 }, /the server cannot be reached \(ECONNREFUSED\)/],
  ];
  for (const [what, wrong, message] of cases) {
    test(`${what} is said in a sentence`, async () => {
      await assert.rejects(openObjectVolumes(wrong, 'p/', 'this test', silentLog), (error: Error) => error.name === 'HostSetupError' && message.test(error.message) && !error.message.includes('hidden-secret') || assert.fail(error));
    });
  }

  test('a key that may only read is found out, and so is one that may not remove', async () => {
    for (const refused of ['PUT', 'DELETE']) {
      store.front.fate = ({ method }) => (method === refused ? 403 : 'pass');
      await assert.rejects(open(), { name: 'HostSetupError', message: /the key may not read, write, list and remove objects there/ });
    }
  });

  test('the prefix of another server is refused, also when both begin at once', async () => {
    await assert.rejects(openObjectVolumes(options, 'p/', 'somebody else', silentLog), { name: 'HostSetupError', message: /has the volumes of another server/ });
    const outcomes = await Promise.allSettled(['a', 'b', 'c', 'd'].map((owner) => openObjectVolumes(options, 'race/', owner, silentLog)));
    const won = outcomes.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    assert.equal(won.length, 1);
    await won[0]!.close();
  });
});
