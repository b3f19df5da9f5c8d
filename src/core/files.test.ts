import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { Server, never } from './testing/server.ts';

describe('files', () => {
  it('are written, read, found, renamed and removed', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    const { files, principal } = server;
    assert.deepEqual(await files.write(principal, { id }, '/a', undefined, Buffer.from('hello'), never), { path: '/a', size: 5 });
    assert.equal(await text((await files.read(principal, { id }, '/a', undefined, never)).body), 'hello');
    assert.equal(await files.exists(principal, { id }, '/a', undefined, never), true);
    assert.equal((await files.rename(principal, { id }, '/a', '/b', undefined, never)).path, '/b');
    assert.equal(await files.exists(principal, { id }, '/a', undefined, never), false);
    await assert.rejects(files.info(principal, { id }, '/a', undefined, never), { code: 'not_found' });
    assert.equal(await files.remove(principal, { id }, '/b', undefined, never), true);
    assert.equal(await files.remove(principal, { id }, '/b', undefined, never), false);
  });

  it('are refused above the limit, whether the size is known or not, and then nothing is written', async () => {
    await using server = await Server.start({ maxFileBytes: 10 });
    const { id } = await server.create();
    const { files, principal } = server;
    const message = 'the file is larger than the limit of 10 bytes; write it in parts';
    await assert.rejects(files.write(principal, { id }, '/a', undefined, Buffer.alloc(11), never), { code: 'too_large', message });
    await assert.rejects(files.write(principal, { id }, '/a', undefined, Readable.from([Buffer.alloc(6), Buffer.alloc(6)]), never), { code: 'too_large', message });
    assert.equal(await files.exists(principal, { id }, '/a', undefined, never), false);
    assert.equal((await files.write(principal, { id }, '/a', undefined, Readable.from([Buffer.alloc(5), Buffer.alloc(5)]), never)).size, 10);
  });

  it('are not written when the body breaks off', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    const { files, principal } = server;
    const body = new Readable({ read() {} });
    body.push('half');
    setTimeout(() => body.destroy(), 10);
    await assert.rejects(files.write(principal, { id }, '/a', undefined, body, never), { code: 'invalid_argument', message: 'the body broke off before its end' });
    assert.equal(await files.exists(principal, { id }, '/a', undefined, never), false);
  });

  it('need a path that Linux would take', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    for (const path of ['', 'a\0b', '/'.padEnd(4097, 'x')]) await assert.rejects(server.files.info(server.principal, { id }, path, undefined, never), { code: 'invalid_argument' });
    await assert.rejects(server.files.list(server.principal, { id }, '/', undefined, 0, never), { code: 'invalid_argument' });
  });

  it('leave events without their content', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    await server.files.write(server.principal, { id }, '/secret.txt', undefined, Buffer.from('content'), never);
    await server.events.flush();
    const told = await server.store.events.list(server.principal.teamId, id, 10);
    assert.deepEqual(told.at(-1)?.detail, { path: '/secret.txt', size: 7 });
  });

  it('of a sandbox that has ended are gone, with the reason', async () => {
    await using server = await Server.start();
    const { id } = await server.create();
    await server.sandboxes.kill(server.principal, { id });
    await assert.rejects(server.files.info(server.principal, { id }, '/a', undefined, never), { code: 'gone', message: /it was killed at/ });
  });
});
