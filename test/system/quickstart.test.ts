import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { examples, firstBlockBelow } from '../harness/documents.ts';
import { repository, serverOfThisFile } from '../harness/server.ts';
import { gatewayOfThisFile } from '../harness/superserve.ts';
import { eventually, within } from '../harness/wait.ts';

// What the documents tell the reader to type works, as it stands there, apart from the key and the port.

const server = serverOfThisFile();
const gateway = gatewayOfThisFile(server);
const programs: Readonly<Record<string, readonly [string, string[], string]>> = {
  ts: [process.execPath, [], '.mts'],
  typescript: [process.execPath, [], '.mts'],
  js: [process.execPath, [], '.mjs'],
  javascript: [process.execPath, [], '.mjs'],
  bash: ['bash', ['-euo', 'pipefail'], '.sh'],
  sh: ['bash', ['-euo', 'pipefail'], '.sh'],
};

/** A directory as the reader has it after `npm install @declaw/sdk`. */
function readersDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'paddock-reader-'));
  for (const sdk of ['@declaw/sdk', '@superserve/sdk']) {
    mkdirSync(join(directory, 'node_modules', dirname(sdk)), { recursive: true });
    symlinkSync(join(repository, 'node_modules', sdk), join(directory, 'node_modules', sdk));
  }
  writeFileSync(join(directory, 'package.json'), '{"private": true}\n');
  return directory;
}

async function run(directory: string, language: string, code: string): Promise<string> {
  const [program, args, extension] = programs[language] ?? [];
  if (program === undefined) throw new Error(`"${language}" cannot be run`);
  const file = join(directory, `example${extension}`);
  writeFileSync(file, code.replaceAll('your-api-key', server.apiKey).replace(/\bdcl_[\w.…]*/g, server.apiKey).replace(/(127\.0\.0\.1|localhost):7070/g, `127.0.0.1:${server.port}`));
  const child = spawn(program, [...(args ?? []), file], {
    cwd: directory,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', HOME: directory, DECLAW_DOMAIN: `127.0.0.1:${server.port}`, DECLAW_API_KEY: server.apiKey, ...(code.includes('@superserve/sdk') ? { ...gateway.environment, SUPERSERVE_API_KEY: server.apiKey } : {}) },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  try {
    const code = await within(60_000, 'the example', new Promise<number | null>((resolve) => child.on('close', resolve)));
    assert.equal(code, 0, output);
  } finally {
    child.kill('SIGKILL');
  }
  return output;
}

async function nobodyIsLeft(): Promise<void> {
  await eventually(async () => (await Sandbox.list()).sandboxes.length === 0);
}

test('the quick start of the SDK\'s README runs', async () => {
  const directory = readersDirectory();
  try {
    const readme = readFileSync(join(repository, 'node_modules/@declaw/sdk/README.md'), 'utf8');
    assert.match(await run(directory, 'typescript', firstBlockBelow(readme, 'Quick Start')), /^Hello from a secure sandbox$/m);
    await nobodyIsLeft();
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

test('our README shows a first sandbox with the SDK and with curl', () => {
  const languages = examples().filter((each) => each.document === 'README.md').flatMap((each) => each.steps.map((step) => step.language));
  assert.ok(languages.some((language) => ['ts', 'typescript', 'js', 'javascript'].includes(language)), 'no program of README.md is marked with <!-- test: NAME -->');
  assert.ok(languages.some((language) => ['bash', 'sh'].includes(language)), 'no shell block of README.md is marked with <!-- test: NAME -->');
});

for (const { document, name, steps, outputs } of examples()) {
  test(`${document}: the example "${name}" runs`, async () => {
    const directory = readersDirectory();
    try {
      let output = '';
      for (const { language, code } of steps) output += await run(directory, language, code);
      for (const expected of outputs) assert.ok(output.includes(expected.trim()), `${expected}\n— is not in —\n${output}`);
      await nobodyIsLeft();
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
}

test('the lines that README shows for the gateway are those that it prints', () => {
  const [, shown = ''] = /<!-- lines: superserve -->\n```bash\n(.*?)```/s.exec(readFileSync(join(repository, 'README.md'), 'utf8')) ?? [];
  const lines = Object.fromEntries([...shown.matchAll(/(\w+)=(\S+)/g)].map(([, name = '', value = '']) => [name, value]));
  const own = (value: string): string => value.replace(/127\.0\.0\.1:\d+/g, '127.0.0.1').replace(/^\/.*(?=\/gateway\/)/, '');
  assert.deepEqual(Object.entries(lines).map(([name, value]) => [name, own(value)]), Object.entries(gateway.environment).map(([name, value]) => [name, own(value)]));
});

test('the snippet that the server prints at its start runs', async () => {
  const program = /node --input-type=module -e "\n(.*?)\n {2}"/s.exec(server.log)?.[1];
  assert.ok(program !== undefined, server.log);
  const directory = readersDirectory();
  try {
    assert.match(await run(directory, 'js', program), /stdout: 'Linux /);
    await nobodyIsLeft();
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
