import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';

const server = serverOfThisFile();

test('the templates are listed with their ids and limits', async () => {
  const { status, json } = await server.call('GET', '/templates');
  assert.equal(status, 200);
  const aliases = json.templates.map((each: { alias: string }) => each.alias);
  for (const name of ['base', 'python', 'node']) assert.ok(aliases.includes(name));
  const one = await server.call('GET', '/templates/tpl-python');
  assert.equal(one.json.alias, 'python');
  assert.equal((await server.call('GET', '/templates/tpl-none')).status, 404);
});

test('base has a shell, git, curl, certificates, sudo and the process tools, and git works', async () => {
  const sandbox = await Sandbox.create({ template: 'base' });
  assert.match(await output(sandbox, 'bash --version; git --version; curl --version; ps --version; sudo --version 2>&1 || true'), /GNU bash[^]*git version[^]*curl [78][^]*procps/);
  await output(sandbox, 'test -s /etc/ssl/certs/ca-certificates.crt');
  assert.equal(await output(sandbox, 'git config --global user.email a@b.c && git config --global user.name A && git init -q repo && cd repo && echo 1 > f && git add f && git commit -qm first && git clone -q . ../clone && git -C ../clone log --format=%s'), 'first\n');
  assert.equal(await output(sandbox, 'printf hello > /tmp/f && curl -s file:///tmp/f'), 'hello');
  assert.match(await output(sandbox, 'df -h / > /dev/null; date +%Z; locale 2>/dev/null | head -1; getent passwd user'), /user:x:1000:1000:[^\n]*:\/home\/user:\/bin\/bash/);
  await sandbox.kill();
});

test('programs that were written inside run: copies, unpacked archives, files sent in', async () => {
  const sandbox = await Sandbox.create({ template: 'base' });
  assert.equal(await output(sandbox, 'cp /usr/bin/id copy && ./copy -un'), 'user\n');
  assert.equal(await output(sandbox, 'tar -C /usr/bin -cf - env | tar -xf - && ./env echo unpacked'), 'unpacked\n');
  await sandbox.files.write('/home/user/sent', await sandbox.files.read('/usr/bin/echo', { format: 'bytes' }));
  assert.equal(await output(sandbox, 'chmod +x sent && ./sent arrived'), 'arrived\n');
  await output(sandbox, 'cp /usr/bin/true /tmp/t && /tmp/t && cp /usr/bin/true /dev/shm/t && /dev/shm/t');
  await sandbox.kill();
});

test('python runs code, installs packages with pip and makes virtual environments', async () => {
  const sandbox = await Sandbox.create({ template: 'python' });
  assert.equal(await output(sandbox, `python3 -c 'print(sum(range(10)))'`), '45\n');
  await sandbox.files.write('/home/user/wheel.py', wheelMaker);
  await output(sandbox, 'python3 wheel.py');
  await output(sandbox, 'pip install ./paddle-1.0-py3-none-any.whl', { timeout: 120 });
  assert.equal(await output(sandbox, `python3 -c 'import paddle; print(paddle.word)'`), 'splash\n');
  await output(sandbox, 'python3 -m venv env && env/bin/pip install --no-index ./paddle-1.0-py3-none-any.whl', { timeout: 120 });
  assert.equal(await output(sandbox, `env/bin/python -c 'import paddle, sys; print(paddle.word, sys.prefix)'`), 'splash /home/user/env\n');
  await output(sandbox, 'pip install --force-reinstall /home/user/paddle-1.0-py3-none-any.whl', { user: 'root', timeout: 120 });
  await sandbox.kill();
});

/** A package of one module, as a wheel: nothing has to be fetched or built. */
const wheelMaker = `
import zipfile
with zipfile.ZipFile('paddle-1.0-py3-none-any.whl', 'w') as z:
    z.writestr('paddle.py', 'word = "splash"\\n')
    z.writestr('paddle-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: paddle\\nVersion: 1.0\\n')
    z.writestr('paddle-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    z.writestr('paddle-1.0.dist-info/RECORD', 'paddle.py,,\\npaddle-1.0.dist-info/METADATA,,\\npaddle-1.0.dist-info/WHEEL,,\\npaddle-1.0.dist-info/RECORD,,\\n')
`;

test('node runs code, and npm packs and installs', async () => {
  const sandbox = await Sandbox.create({ template: 'node' });
  assert.match(await output(sandbox, 'node -p process.version'), /^v\d+\.\d+\.\d+\n$/);
  assert.equal(await output(sandbox, `node -e 'console.log([3, 1, 2].toSorted().join())'`), '1,2,3\n');
  await sandbox.files.write('/home/user/lib/package.json', JSON.stringify({ name: 'oar', version: '1.0.0', type: 'module', exports: './index.js' }));
  await sandbox.files.write('/home/user/lib/index.js', 'export const word = "row";\n');
  await output(sandbox, 'cd lib && npm pack --pack-destination ..', { timeout: 120 });
  await output(sandbox, 'mkdir app && cd app && npm init -y && npm install --no-audit ../oar-1.0.0.tgz', { timeout: 120 });
  assert.equal(await output(sandbox, `cd app && node --input-type=module -e 'import { word } from "oar"; console.log(word)'`), 'row\n');
  await sandbox.kill();
});

test('what one sandbox writes over its template, no other sees', async () => {
  const [first, second] = await Promise.all([Sandbox.create(), Sandbox.create()]);
  await first.commands.run('echo mine > /etc/motd; rm -rf /usr/bin/git', { user: 'root' });
  assert.match((await second.commands.run('git --version')).stdout, /git version/);
  assert.ok(!(await second.files.exists('/etc/motd')) || !(await second.files.read('/etc/motd')).includes('mine'));
  const third = await Sandbox.create();
  assert.match((await third.commands.run('git --version')).stdout, /git version/);
  await Sandbox.killMany([first, second, third].map((each) => each.sandboxId));
});
