import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { buildOver } from '../harness/builds.ts';
import { file, ImageBench, layerOf } from '../harness/images.ts';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';

// Images that are no template of ours: what is in them, and what they lack.

const bench = new ImageBench();
const small = bench.layout([smallRoot()], { config: { Env: ['PATH=/usr/bin:/opt/own', 'FROM_IMAGE=yes'], WorkingDir: '/srv/data', User: 'svc', Entrypoint: ['/entry'], Cmd: ['x'] } });
const bare = bench.layout([layerOf(file('hello', 'no shell here'))]);
after(() => bench[Symbol.dispose]());

const server = serverOfThisFile({ PADDOCK_IMAGE_ALIASES: `small:1=${small},bare:1=${bare}` });

/** A shell, a few tools and the libraries that they need, from this machine; with a user of its own under the number that ours usually has. */
function smallRoot(): Buffer {
  const stage = mkdtempSync(join(tmpdir(), 'paddock-small-'));
  try {
    const put = (path: string): void => {
      const target = join(stage, path.replace(/^\/(bin|lib|lib64|sbin)\//, '/usr/$1/'));
      mkdirSync(dirname(target), { recursive: true });
      copyFileSync(path, target);
      chmodSync(target, 0o755);
    };
    const tools = ['dash', 'cat', 'chmod', 'chown', 'cut', 'date', 'grep', 'id', 'ls', 'mkdir', 'rm', 'sleep', 'stat', 'sync', 'touch'].map((name) => `/usr/bin/${name}`);
    for (const path of tools) put(path);
    for (const library of new Set(execFileSync('ldd', tools, { encoding: 'utf8' }).match(/(?<=\s)\/lib\S*\.so[^\s:]*/g))) put(library);
    for (const name of ['bin', 'lib', 'lib64', 'sbin']) {
      mkdirSync(join(stage, 'usr', name), { recursive: true });
      symlinkSync(`usr/${name}`, join(stage, name));
    }
    symlinkSync('dash', join(stage, 'usr/bin/sh'));
    mkdirSync(join(stage, 'etc'));
    mkdirSync(join(stage, 'home/svc'), { recursive: true });
    writeFileSync(join(stage, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nsvc:x:1000:1000::/home/svc:/bin/sh\n');
    chmodSync(stage, 0o755);
    writeFileSync(join(stage, 'etc/group'), 'root:x:0:\nsvc:x:1000:\n');
    return execFileSync('tar', ['-C', stage, '--owner=0', '--group=0', '-cf', '-', '.'], { maxBuffer: 256 * 1024 * 1024 });
  } finally {
    rmSync(stage, { recursive: true });
  }
}

async function build(alias: string, template: object): Promise<{ status: string; logs: string[]; error?: string }> {
  const { status, json, text } = await server.call('POST', '/templates/build', { json: { alias, template } });
  assert.equal(status, 201, text);
  return buildOver(server, json.build_id);
}

test('a template from an image has its files, environment, user and directory, and both of our users', async () => {
  const { status, logs, error } = await build('small', { base_image: 'small:1', run_cmds: ['echo "$(id -un) $(pwd) $FROM_IMAGE" > /tmp/made'] });
  assert.equal(status, 'completed', `${error}\n${logs.join('\n')}`);
  const sandbox = await Sandbox.create({ template: 'small' });
  const run = async (cmd: string, user?: string): Promise<string> => (await server.call('POST', `/sandboxes/${sandbox.sandboxId}/commands`, { json: { cmd, ...(user === undefined ? {} : { user }) } })).json.stdout;
  assert.equal(await run('cat /tmp/made; id -un; pwd; echo $FROM_IMAGE; echo $PATH'), 'svc /srv/data yes\nsvc\n/srv/data\nyes\n/usr/bin:/opt/own\n');
  assert.equal(await run('id -u; id -un; cd; pwd; touch mine; stat -c %U mine', 'user'), '1001\nuser\n/home/user\nuser\n');
  assert.equal(await run('id -u; touch /etc/x && ls /etc/x', 'root'), '0\n/etc/x\n');
  await sandbox.pause();
  await sandbox.resume();
  assert.equal(await output(sandbox, 'cat /tmp/made'), 'svc /srv/data yes\n');
  await sandbox.kill({ wait: true });
});

test('a second build from the same image neither unpacks nor prepares it again', async () => {
  const { status, logs } = await build('small-again', { base_image: 'small:1', run_cmds: ['true'] });
  assert.equal(status, 'completed');
  assert.ok(logs.includes('preparing the image (as before)'), logs.join('\n'));
});

test('a Dockerfile over the image has sudo for whom it is given, and an image without a shell is told so', async () => {
  const { status, error } = await build('layered', { dockerfile: 'FROM small:1\nUSER root\nRUN echo top > /etc/layer\nUSER svc\nRUN cat /etc/layer\n' });
  assert.equal(status, 'completed', error);
  const failed = await build('bare', { base_image: 'bare:1' });
  assert.equal(failed.status, 'failed');
  assert.match(failed.error ?? '', /^boot_failed: the image could not be prepared, which takes a shell at \/bin\/sh/);
});

test('paths of this machine are the operator’s: nobody else names one', async () => {
  for (const from of [small, 'docker-archive:/etc/passwd', `oci:${server.dataDir}`]) {
    const { status, error } = await build(`path-${from.length}`, { base_image: from });
    assert.equal(status, 'failed');
    assert.match(error ?? '', /^bad_reference: /);
  }
  assert.ok(readFileSync(join(small.slice('oci:'.length), 'index.json')).length > 0);
});
