import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { describe, test } from 'node:test';
import { archive } from '../../test/harness/archives.ts';
import { PaddockError } from './errors.ts';
import type { FileEntry, GuestFiles } from './host.ts';
import type { Principal } from './principal.ts';
import { never, Server } from './testing/server.ts';

const entry = (name: string, type: FileEntry['type'], size = 0): FileEntry => ({ name, path: `/elsewhere/${name}`, type, size, mode: 0o7777, uid: 0, gid: 0, modifiedAt: 0 });
const endless = (): Readable => Readable.from((function* () {
  for (;;) yield Buffer.alloc(65_536);
})());
const left = (server: Server): string[] => {
  const root = join(server.directory, 'volumes');
  return existsSync(root) ? readdirSync(root) : [];
};

describe('a guest that lies while a volume is made of it', () => {
  const lies: [what: string, lie: Partial<GuestFiles>, code: string][] = [
    ['about names, to climb out', { list: async () => ({ entries: [entry('../../evil', 'file')], truncated: false }) }, 'unprocessable'],
    ['about names, with dots only', { list: async () => ({ entries: [entry('..', 'dir')], truncated: false }) }, 'unprocessable'],
    ['about names, with none', { list: async () => ({ entries: [entry('', 'file')], truncated: false }) }, 'unprocessable'],
    ['about names, with NUL', { list: async () => ({ entries: [entry('a\0b', 'file')], truncated: false }) }, 'unprocessable'],
    ['about directories, without end', { list: async () => ({ entries: [entry('d', 'dir')], truncated: false }) }, 'unprocessable'],
    ['about directories, more than can be', { list: async () => ({ entries: Array.from({ length: 60 }, (_, i) => entry(`d${i}`, 'dir')), truncated: false }) }, 'too_large'],
    ['about the end of its listing', { list: async () => ({ entries: [], truncated: true }) }, 'too_large'],
    ['about the size of a file, which has no end', { list: async () => ({ entries: [entry('f', 'file', 1)], truncated: false }), read: async () => ({ size: 1, body: endless() }) }, 'too_large'],
    ['with a file and a directory of one name', { list: async (path) => ({ entries: path === '/data' ? [entry('a', 'file'), entry('a', 'dir')] : [], truncated: false }), read: async () => ({ size: 0, body: Readable.from([]) }) }, 'invalid_argument'],
  ];
  for (const [what, lie, code] of lies) {
    test(what, async () => {
      await using server = await Server.start({ maxVolumeBytes: 1_000_000, maxVolumeEntries: 100 });
      const sandbox = await server.create();
      Object.assign(server.host.memory(sandbox.id).files, { info: async () => entry('data', 'dir'), ...lie });
      await assert.rejects(server.volumeCaptures.capture(server.principal, { id: sandbox.id }, '/data', 'v', never), { code });
      assert.deepEqual([left(server), await server.volumes.list(server.principal)], [[], []]);
    });
  }
});

describe('volumes of a team', () => {
  test('are not there for another one, in any use case', async () => {
    await using server = await Server.start();
    const { id } = await server.volumes.ingest(server.principal, 'mine', Readable.from([archive({ name: 'a', data: 'secret' })]), true, never);
    const { token } = await server.volumeLocks.acquire(server.principal, id, '/a');
    const stranger: Principal = { ...server.principal, teamId: '00000000-0000-4000-8000-000000000009' as Principal['teamId'] };
    const { volumes, volumeFiles: files, volumeLocks: locks } = server;
    const calls: (() => Promise<unknown>)[] = [
      () => volumes.get(stranger, id), () => volumes.download(stranger, id, never), () => files.read(stranger, id, '/a'), () => files.write(stranger, id, '/a', Readable.from(['x']), null, never),
      () => files.list(stranger, id, '/'), () => files.info(stranger, id, '/a'), () => files.exists(stranger, id, '/a'), () => files.remove(stranger, id, '/a', true), () => files.rename(stranger, id, '/a', '/b'),
      () => files.makeDir(stranger, id, '/d'), () => locks.acquire(stranger, id, '/b'), () => locks.renew(stranger, id, '/a', token), () => locks.release(stranger, id, '/a', token), () => locks.status(stranger, id, '/a'),
      () => server.sandboxes.create(stranger, { wire: 'declaw', templateName: 'base', timeoutSeconds: 0, metadata: {}, envs: {}, lifecycle: { onTimeout: 'kill', autoResume: false, maxLifetimeSeconds: null, autoDeleteSeconds: null }, declared: {}, defaultUser: 'user', policy: { volumes: [{ volumeId: id, mountPath: '/data', mode: 'copy' }] } }, never),
    ];
    for (const call of calls) await assert.rejects(call(), { code: 'not_found' }, call.toString());
    assert.equal(await volumes.delete(stranger, id), false);
    assert.deepEqual(await volumes.list(stranger), []);
    assert.equal((await volumes.get(server.principal, id)).bytes, 6);
  });

  test('a sandbox whose files cannot be copied is not made, also when its volume goes meanwhile', async () => {
    await using server = await Server.start();
    const many = Array.from({ length: 50 }, (_, i) => ({ name: `f${i}`, data: 'x' }));
    const { id } = await server.volumes.ingest(server.principal, 'v', Readable.from([archive(...many)]), true, never);
    const create = () => server.create({ policy: { volumes: [{ volumeId: id, mountPath: '/data', mode: 'copy' }] } });
    const { id: fine } = await create();
    assert.deepEqual((await server.host.memory(fine).files.list('/data')).entries.length, 50);
    const { prototype } = server.host.memory(fine).files.constructor as unknown as { prototype: GuestFiles };
    const write = prototype.write;
    try {
      let written = 0;
      prototype.write = async function (this: GuestFiles, ...rest: Parameters<GuestFiles['write']>) {
        if (++written === 20) throw new PaddockError('no_space', 'the disk of the sandbox is full');
        return write.apply(this, rest);
      };
      await assert.rejects(create(), { code: 'no_space' });
      prototype.write = async function (this: GuestFiles, ...rest: Parameters<GuestFiles['write']>) {
        await server.volumes.delete(server.principal, id);
        return write.apply(this, rest);
      };
      await assert.rejects(create(), { code: 'conflict' });
    } finally {
      prototype.write = write;
    }
    assert.equal(server.host.guests.size, 1);
    assert.equal((await server.sandboxes.living()).length, 1);
  });

  test('what they hold is counted anew after a crash', async () => {
    await using server = await Server.start();
    const { id } = await server.volumes.create(server.principal, 'v');
    await server.volumeFiles.write(server.principal, id, '/a', Readable.from(['12345']), null, never);
    await server.store.volumes.resize(id, { bytes: 999, entries: 9 }, 0);
    await server.restart();
    await server.volumeFiles.write(server.principal, id, '/b', Readable.from(['67']), null, never);
    const { bytes, entries } = await server.volumes.get(server.principal, id);
    assert.deepEqual({ bytes, entries }, { bytes: 7, entries: 2 });
  });
});
