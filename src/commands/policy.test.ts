import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createInput, never, Server } from '../core/testing/server.ts';

const root = mkdtempSync(join(tmpdir(), 'paddock-policy-'));
after(() => rmSync(root, { recursive: true }));
const main = new URL('../main.ts', import.meta.url).pathname;

async function explain(dataDir: string, ...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const child = spawn(process.execPath, [main, 'policy', ...args], { env: { PADDOCK_DATA_DIR: dataDir }, stdio: ['ignore', 'pipe', 'pipe'] });
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close') as Promise<[number]>]);
  return { code, out, err };
}

test('rules on the command line are explained, with an exit code that tells', async () => {
  assert.deepEqual(await explain(root, 'explain', '--allow', '*.x.com', '--deny', '*', 'https://a.x.com/path'), {
    code: 0,
    out: 'allowed  a.x.com:443\n  because  domain, rule *.x.com\n  dials    a.x.com:443, at an address that the server itself resolves\n  but      Blocked all the same if the name resolves to nothing but addresses outside the public internet.\n',
    err: '',
  });
  assert.deepEqual(await explain(root, 'explain', 'http://169.254.169.254/latest'), {
    code: 2,
    out: 'blocked  169.254.169.254:80\n  because  internal-ip\n           169.254.169.254 is not on the public internet (link-local, where clouds keep their metadata); no rule can open it.\n',
    err: '',
  });
});

test('the rules of a sandbox are explained beside the server that runs it', async () => {
  await using server = await Server.start();
  const sandbox = await server.sandboxes.create(server.principal, createInput({ policy: { network: { allowOut: ['x.com'] } } }), never);
  for (const name of [`sbx-${sandbox.shortId}`, sandbox.shortId, sandbox.id]) {
    assert.match((await explain(server.directory, 'explain', name, 'y.com:22')).out, /^blocked {2}y\.com:22\n {2}because {2}implicit-deny\n/);
  }
  assert.deepEqual(await explain(server.directory, 'explain', 'sbx-nobody00', 'y.com'), { code: 1, out: '', err: `paddock: There is no sandbox sbx-nobody00 in ${server.directory}.\n` });
});

test('what cannot be understood is a sentence', async () => {
  assert.deepEqual((await explain(root, 'explain', '--allow', '::1', 'x.com')).err, 'paddock: --allow[0] "::1" is an IPv6 address; IPv6 is not supported, and sandboxes have none: nothing needs to be denied.\n');
  assert.match((await explain(root, 'explain', 'not a host')).err, /^paddock: target "not a host" is not a URL, a host, host:port or an address\.\n$/);
  for (const args of [[], ['explain'], ['forget', 'x'], ['explain', 'a', 'b', 'c'], ['explain', '--allow', 'x', 'sbx-1', 'y'], ['explain', '--permit', 'x', 'y']]) {
    const { code, err } = await explain(root, ...args);
    assert.equal(code, 1);
    assert.match(err, /Usage: paddock policy explain/);
  }
});
