import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { output } from '../harness/sandbox.ts';
import { artefactsDir, TestServer } from '../harness/server.ts';
import { eventually } from '../harness/wait.ts';

// A place of its own, in which nothing has been asked for yet.
const artefacts = mkdtempSync(join(tmpdir(), 'paddock-offered-'));
const server = new TestServer({ PADDOCK_ARTEFACTS_DIR: artefacts });

before(async () => {
  for (const kind of ['agent', 'runsc', 'unpacker']) cpSync(join(artefactsDir, kind), join(artefacts, kind), { recursive: true });
  for (const directory of readdirSync(join(artefactsDir, 'templates'))) {
    const current = join('templates', directory, 'current.json');
    const recipe = join('templates', `${directory}.json`);
    if (!existsSync(join(artefactsDir, current)) || JSON.parse(readFileSync(recipe, 'utf8')).on_demand === true) continue;
    mkdirSync(join(artefacts, 'templates', directory), { recursive: true });
    cpSync(join(artefactsDir, current), join(artefacts, current));
    const { digest } = JSON.parse(readFileSync(join(artefactsDir, current), 'utf8')) as { digest: string };
    symlinkSync(join(artefactsDir, 'templates', directory, digest), join(artefacts, 'templates', directory, digest));
  }
  offer('mcp-server');
  offer('devops');
  await server.start();
});

after(async () => {
  await server.remove();
  rmSync(artefacts, { recursive: true, force: true });
});

function offer(name: string): void {
  mkdirSync(join(artefacts, 'templates', name), { recursive: true });
  cpSync(join('templates', `${name}.json`), join(artefacts, 'templates', name, 'available.json'));
}

const listed = async (): Promise<string[]> => (await server.call('GET', '/templates')).json.templates.map((each: { alias: string }) => each.alias);
const create = (template: string): Promise<{ status: number; json: { code: string; message: string; sandbox_id: string } }> => server.call('POST', '/sandboxes', { json: { template } });

test('a template of the catalogue is built when it is asked for first, and then works', async () => {
  assert.ok(!(await listed()).includes('mcp-server'));
  const first = await create('mcp-server');
  assert.deepEqual([first.status, first.json.code], [409, 'template_not_ready']);
  assert.match(first.json.message, /is built when it is asked for first; that has begun/);
  const second = await create('mcp-server');
  assert.deepEqual([second.status, second.json.code], [409, 'template_not_ready']);
  await eventually(async () => (await listed()).includes('mcp-server'), { withinMs: 240_000, everyMs: 500 });

  const sandbox = await Sandbox.create({ template: 'mcp-server' });
  await sandbox.files.write('/home/user/server.mts', mcpServer);
  assert.equal(await output(sandbox, 'tsx server.mts', { timeout: 60 }), 'add\n');
  assert.match(await output(sandbox, 'tsc --version && python --version'), /^Version .*\nPython 3/);
  await sandbox.kill();
});

const mcpServer = `
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { InMemoryTransport } from '@modelcontextprotocol/sdk/inMemory.js';
import { z } from 'zod';

const server = new McpServer({ name: 'sums', version: '1.0.0' });
server.registerTool('add', { inputSchema: { a: z.number() } }, async ({ a }) => ({ content: [{ type: 'text', text: String(a) }] }));
const [here, there] = InMemoryTransport.createLinkedPair();
const client = new Client({ name: 'test', version: '1.0.0' });
await Promise.all([server.connect(here), client.connect(there)]);
console.log((await client.listTools()).tools.map((tool) => tool.name).join());
`;

test('a server that stops ends the build, and the next one begins it anew', async () => {
  assert.equal((await create('devops')).status, 409);
  await eventually(() => building().length > 0, { withinMs: 60_000 });
  await server.stop();
  await eventually(() => setUps().length === 0);
  await server.start();
  const again = await create('devops');
  assert.match(again.json.message, /that has begun/);
  await server.crash();
  for (const pid of setUps()) process.kill(pid, 'SIGKILL');
  await eventually(() => setUps().length === 0);
  await server.start();
});

test('a build that fails says why, to whoever asks next', async () => {
  mkdirSync(join(artefacts, 'templates', 'imaginary'));
  cpSync(join('templates', 'devops.json'), join(artefacts, 'templates', 'imaginary', 'available.json'));
  const file = join(artefacts, 'templates', 'imaginary', 'available.json');
  const said = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  writeFileSync(file, JSON.stringify({ ...said, name: 'imaginary' }));
  await server.stop();
  await server.start();
  assert.equal((await create('imaginary')).status, 409);
  const refusal = await eventually(
    async () => {
      const { message } = (await create('imaginary')).json;
      return /could not be built/.test(message) && message;
    },
    { withinMs: 60_000, everyMs: 200 },
  );
  assert.match(refusal, /There is no built-in template "imaginary"/);
});

function building(): string[] {
  return readdirSync(join(artefacts, 'templates')).filter((name) => name.startsWith('.build-'));
}

/** Processes of set-up that work on this place. */
function setUps(): number[] {
  return readdirSync('/proc').flatMap((name) => {
    try {
      const isSetUp = /^\d+$/.test(name) && readFileSync(`/proc/${name}/cmdline`, 'utf8').includes('run.mjs\0setup');
      return isSetUp && readFileSync(`/proc/${name}/environ`, 'utf8').includes(`PADDOCK_ARTEFACTS_DIR=${artefacts}`) ? [Number(name)] : [];
    } catch {
      return []; // it has ended
    }
  });
}
