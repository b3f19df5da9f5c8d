import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { call, type Answer, type CallOptions } from './http.ts';
import { isAlive, tracesOf, wipe } from './machine.ts';
import { sleep, within } from './wait.ts';

export const repository = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const artefactsDir = process.env['PADDOCK_ARTEFACTS_DIR'] || '/var/lib/paddock';

const dataPrefix = 'paddock-test-';
const startDeadlineMs = 30_000;
const stopDeadlineMs = 30_000;
const logLimit = 4 * 1024 * 1024;

export interface CommandOutcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * A server process of its own: free port, temporary data directory, API key. The official SDK finds it through its environment
 * variables, as a user's program would. The port stays the same over restarts.
 */
export class TestServer {
  readonly dataDir = realpathSync(mkdtempSync(join(tmpdir(), dataPrefix)));
  readonly apiKey = `dcl_${randomBytes(24).toString('hex')}`;
  readonly #settings: Readonly<Record<string, string>>;
  #port = 0;
  #child: ChildProcess | null = null;
  #log = '';

  constructor(settings: Readonly<Record<string, string>> = {}) {
    this.#settings = settings;
    writeFileSync(join(this.dataDir, 'test-owner'), String(process.pid));
  }

  get port(): number {
    return this.#port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** What the server has written since it was first started, the newest 4 MiB. */
  get log(): string {
    return this.#log;
  }

  /** Host process of the running server. */
  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error('the server is not running');
    return pid;
  }

  /** The environment in which `paddock` works on this server's data. */
  get environment(): Record<string, string> {
    return {
      PATH: process.env['PATH'] ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: process.env['HOME'] ?? '/root',
      PADDOCK_DATA_DIR: this.dataDir,
      PADDOCK_ARTEFACTS_DIR: artefactsDir,
      PADDOCK_LISTEN: `127.0.0.1:${this.#port}`,
      PADDOCK_API_KEY: this.apiKey,
      ...this.#settings,
    };
  }

  /** Resolves when requests are answered. */
  async start(): Promise<void> {
    if (this.#child !== null) throw new Error('the server is running already');
    if (this.#port === 0) {
      await removeAbandoned();
      this.#port = await freePort();
    }
    process.env['DECLAW_DOMAIN'] = `127.0.0.1:${this.#port}`;
    process.env['DECLAW_API_KEY'] = this.apiKey;
    const child = spawn(process.execPath, ['src/main.ts', 'start'], { cwd: repository, env: this.environment, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (this.#log = (this.#log + text).slice(-logLimit)));
    child.on('exit', () => {
      if (this.#child === child) this.#child = null;
    });
    running.add(child);
    child.on('exit', () => running.delete(child));
    const deadline = Date.now() + startDeadlineMs;
    while (!(await this.#answers())) {
      if (this.#child !== child) throw new Error(`the server ended instead of starting:\n${this.#log}`);
      if (Date.now() > deadline) throw new Error(`the server did not start within ${startDeadlineMs} ms:\n${this.#log}`);
      await sleep(20);
    }
  }

  async #answers(): Promise<boolean> {
    try {
      return (await this.call('GET', '/ready')).status === 200;
    } catch {
      return false; // nobody listens yet
    }
  }

  /** As an operator stops it: sandboxes stay. Resolves to the exit code. */
  async stop(): Promise<number | null> {
    return this.#end('SIGTERM');
  }

  /** As a crash: no handler runs. */
  async crash(): Promise<void> {
    await this.#end('SIGKILL');
  }

  async #end(signal: NodeJS.Signals): Promise<number | null> {
    const child = this.#child;
    if (child === null) throw new Error('the server is not running');
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
    child.kill(signal);
    return within(stopDeadlineMs, `the server after ${signal}`, ended);
  }

  /** Runs one `paddock` command on this server's data directory. */
  paddock(args: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<CommandOutcome> {
    return runPaddock(args, { ...this.environment, ...environment });
  }

  /** One request with this server's key. */
  call(method: string, path: string, options: CallOptions = {}): Promise<Answer> {
    return call(this.url, method, path, { key: this.apiKey, ...options });
  }

  /** Ends everything as an operator would, and fails when anything of this server is left on the machine. */
  async remove(): Promise<void> {
    try {
      if (this.#child !== null) await this.stop();
      const stopped = await this.paddock(['stop', '--all']);
      if (stopped.code !== 0) throw new Error(`paddock stop --all ended with ${stopped.code}:\n${stopped.stdout}${stopped.stderr}`);
      const left = await tracesOf(this.dataDir);
      if (existsSync(join(this.dataDir, 'host'))) left.push(`directory ${join(this.dataDir, 'host')}`);
      if (left.length > 0) throw new Error(`paddock stop --all left on the machine:\n${left.join('\n')}`);
    } finally {
      await destroy(this.dataDir);
    }
  }
}

const preparations: (() => Promise<void>)[] = [];

/**
 * Something to do once the file's server runs and before its tests, in the order of the calls. The test runner's own hooks of a
 * file run at the same time.
 */
export function prepare(step: () => Promise<void>): void {
  preparations.push(step);
}

/** A server for all tests of the file that calls this: started before them, and afterwards nothing of it may be left. */
export function serverOfThisFile(settings: Readonly<Record<string, string>> = {}): TestServer {
  const server = new TestServer(settings);
  before(async () => {
    await server.start();
    for (const step of preparations) await step();
  });
  after(() => server.remove());
  return server;
}

export function runPaddock(args: readonly string[], environment: Readonly<Record<string, string>>, command: readonly string[] = [process.execPath]): Promise<CommandOutcome> {
  const [program = '', ...first] = command;
  return new Promise((resolve, reject) => {
    const child = spawn(program, [...first, join(repository, 'src/main.ts'), ...args], { cwd: repository, env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(child);
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.on('error', reject);
    child.on('close', (code) => {
      running.delete(child);
      resolve({ code, stdout, stderr });
    });
  });
}

/** Below the range the kernel takes for outgoing connections, so that nothing else takes it while the server restarts. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    const probe = createServer();
    const free = await new Promise<boolean>((resolve) => {
      probe.once('error', () => resolve(false));
      probe.listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => probe.close(resolve));
    return port;
  }
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
// A file that runs into its time limit is ended by signal: without this no exit handler would run.
process.on('SIGTERM', () => process.exit(143));

/** Servers of test runs that were aborted: their owner is no more. */
async function removeAbandoned(): Promise<void> {
  for (const name of readdirSync(tmpdir())) {
    if (!name.startsWith(dataPrefix)) continue;
    const dataDir = realpathSync(join(tmpdir(), name));
    const owner = join(dataDir, 'test-owner');
    if (existsSync(owner) && !isAlive(Number(readFileSync(owner, 'utf8')))) await destroy(dataDir);
  }
}

async function destroy(dataDir: string): Promise<void> {
  await wipe(dataDir);
  rmSync(dataDir, { recursive: true, force: true });
}
