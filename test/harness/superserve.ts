import { spawn, type ChildProcess } from 'node:child_process';
import { after } from 'node:test';
import { WebSocket } from 'ws';
import { call, type Answer, type CallOptions } from './http.ts';
import { prepare, repository, type TestServer } from './server.ts';
import { within } from './wait.ts';

type Sdk = typeof import('@superserve/sdk');

/** One request of the control plane, with this server's key where the clients have it. */
export function control(server: TestServer, method: string, path: string, options: CallOptions = {}): Promise<Answer> {
  return call(server.url, method, `/superserve${path}`, { ...options, key: null, headers: { 'x-api-key': server.apiKey, ...options.headers } });
}

/** A sandbox as the control plane shows it; fields are the test's business. */
export interface Made {
  readonly id: string;
  readonly token: string;
  readonly json: any;
}

/** A create that must succeed. */
export async function make(server: TestServer, fields: Readonly<Record<string, unknown>> = {}): Promise<Made> {
  const { status, json, text } = await control(server, 'POST', '/sandboxes', { json: { name: 'test', ...fields } });
  if (status !== 201) throw new Error(`a create answered ${status}: ${text}`);
  return { id: json.id, token: json.access_token, json };
}

/** One request of the data plane on the control plane's port, as a script by hand would send it. */
export function inside(server: TestServer, { id, token }: Pick<Made, 'id' | 'token'>, method: string, path: string, options: CallOptions = {}): Promise<Answer> {
  return call(server.url, method, path, { ...options, key: null, headers: { 'x-superserve-sandbox-id': id, 'x-access-token': token, ...options.headers } });
}

/** Runs a command and gives its answer. */
export async function exec(server: TestServer, sandbox: Pick<Made, 'id' | 'token'>, body: string | object): Promise<any> {
  const { status, json, text } = await inside(server, sandbox, 'POST', '/exec', { json: typeof body === 'string' ? { command: body } : body });
  if (status !== 200) throw new Error(`/exec answered ${status}: ${text}`);
  return json;
}

/** One request to a preview, as it arrives behind whatever brings its host name here. */
export function preview(server: TestServer, id: string, port: number, path: string, options: CallOptions = {}): Promise<Answer> {
  return call(server.url, 'GET', path, { ...options, key: null, headers: { host: `${port}-${id}.sandbox.superserve.ai`, ...options.headers } });
}

/** What came over a WebSocket, and how it ended. */
export class SocketLog {
  readonly socket: WebSocket;
  readonly texts: any[] = [];
  readonly binary: Buffer[] = [];
  protocol = '';
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>;
  /** Rejects with the status of a refused handshake. */
  readonly opened: Promise<void>;

  constructor(server: TestServer, { id, token }: Pick<Made, 'id' | 'token'>, path: string, protocol: string, headers: Readonly<Record<string, string>> = {}) {
    this.socket = new WebSocket(`ws://127.0.0.1:${server.port}${path}`, [protocol, `token.${token}`], { headers: { host: `boxd-${id}.sandbox.superserve.ai`, ...headers } });
    this.opened = new Promise((resolve, reject) => {
      this.socket.on('open', () => {
        this.protocol = this.socket.protocol;
        resolve();
      });
      this.socket.on('unexpected-response', (_request, response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (piece: string) => (text += piece));
        response.on('end', () => reject(Object.assign(new Error(text), { status: response.statusCode, headers: response.headers })));
      });
      this.socket.on('error', reject);
    });
    this.opened.catch(() => {});
    this.socket.on('message', (data, isBinary) => {
      const bytes = data as Buffer;
      if (isBinary) this.binary.push(bytes);
      else this.texts.push(JSON.parse(bytes.toString()));
    });
    this.closed = new Promise((resolve) => this.socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() })));
  }

  /** The bytes of one channel so far. */
  channel(number: number): string {
    return Buffer.concat(this.binary.filter((frame) => frame[0] === number).map((frame) => frame.subarray(1))).toString();
  }

  send(frame: object | Buffer): void {
    this.socket.send(Buffer.isBuffer(frame) ? frame : JSON.stringify(frame));
  }

  stdin(text: string): void {
    this.send(Buffer.concat([Buffer.of(0), Buffer.from(text)]));
  }
}

/** `paddock gateway superserve` for the tests of a file, and the official SDK behind it. */
export class TestGateway {
  readonly #server: TestServer;
  #child: ChildProcess | null = null;
  /** What the gateway says that a Node program needs. */
  environment: Readonly<Record<string, string>> = {};

  constructor(server: TestServer) {
    this.#server = server;
  }

  async start(): Promise<void> {
    const child = spawn(process.execPath, ['src/main.ts', 'gateway', 'superserve', '--port', '0'], { cwd: repository, env: this.#server.environment, stdio: ['ignore', 'pipe', 'inherit'] });
    this.#child = child;
    let said = '';
    await within(10_000, 'the gateway', new Promise<void>((resolve, reject) => {
      child.once('exit', (code) => reject(new Error(`the gateway ended with ${code}`)));
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        said += text;
        if (said.includes('in NO_PROXY')) resolve();
      });
    }));
    const lines = ['For every client', 'Node 22.21'].map((heading) => new RegExp(`${heading}[^\\n]*\\n\\n  export ([^\\n]*)`).exec(said)?.[1] ?? '');
    this.environment = Object.fromEntries([...lines.join(' ').matchAll(/(\w+)=(\S+)/g)].map(([, name = '', value = '']) => [name, value]));
  }

  stop(): void {
    this.#child?.kill();
  }

  /**
   * Runs a function in a Node process of its own, which finds the server by the gateway's environment lines alone, with the unmodified SDK.
   * It sees its arguments and nothing else of this file.
   */
  async run<A, T>(work: (sdk: Sdk, input: A) => Promise<T>, input?: A, environment: Readonly<Record<string, string>> = {}): Promise<T> {
    const mark = '=== result ===';
    const program = `import * as sdk from '@superserve/sdk';\nconst result = await (${work.toString()})(sdk, ${JSON.stringify(input ?? null)});\nconsole.log(${JSON.stringify(mark)} + JSON.stringify(result ?? null));\nprocess.exit(0);`;
    const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
      cwd: repository,
      env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', ...this.environment, SUPERSERVE_API_KEY: this.#server.apiKey, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output += text));
    try {
      const code = await within(120_000, 'the program with the SDK', new Promise<number | null>((resolve) => child.on('close', resolve)));
      const result = output.split(mark)[1];
      if (code !== 0 || result === undefined) throw new Error(`the program with the SDK ended with ${code}:\n${output}`);
      return JSON.parse(result) as T;
    } finally {
      child.kill('SIGKILL');
    }
  }
}

/** A gateway for all tests of the file that calls this, after the file's server. */
export function gatewayOfThisFile(server: TestServer): TestGateway {
  const gateway = new TestGateway(server);
  prepare(() => gateway.start());
  after(() => gateway.stop());
  return gateway;
}
