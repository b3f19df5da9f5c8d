import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, realpathSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ObjectStoreFront } from './object-store-front.ts';
import { freePort } from './server.ts';
import { sleep } from './wait.ts';

const bucket = 'volumes';
/** The only key that s3rver has. */
const secret = 'S3RVER';
const program = createRequire(import.meta.url).resolve('s3rver/bin/s3rver.js');

/** An S3 server in a process of its own, with a front that looks closely. Its port and what it holds stay over restarts; nothing of it stays after the tests. */
export class TestObjectStore implements AsyncDisposable {
  readonly #directory = realpathSync(mkdtempSync(join(tmpdir(), 'paddock-s3-')));
  #port = 0;
  #serverPort = 0;
  #child: ChildProcess | null = null;
  #front: ObjectStoreFront | null = null;

  static async open(): Promise<TestObjectStore> {
    const store = new TestObjectStore();
    directories.add(store.#directory);
    await store.start();
    return store;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Until it is stopped. */
  get front(): ObjectStoreFront {
    return this.#front!;
  }

  /** For a server that keeps its volumes here. */
  settings(prefix = 'paddock'): Record<string, string> {
    return { PADDOCK_VOLUME_STORE: `s3://${bucket}/${prefix}`, PADDOCK_VOLUME_STORE_ENDPOINT: this.endpoint, AWS_ACCESS_KEY_ID: 'S3RVER', AWS_SECRET_ACCESS_KEY: secret };
  }

  get options(): { readonly bucket: string; readonly endpoint: string; readonly region: string; readonly pathStyle: boolean; readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken: null }; readonly extraCa: null } {
    return { bucket, endpoint: this.endpoint, region: 'us-east-1', pathStyle: true, credentials: { accessKeyId: 'S3RVER', secretAccessKey: secret, sessionToken: null }, extraCa: null };
  }

  /** Names of all objects, sorted, as they lie on its disk. */
  get objects(): readonly string[] {
    const suffix = '._S3rver_object';
    if (!existsSync(join(this.#directory, bucket))) return [];
    return (readdirSync(join(this.#directory, bucket), { recursive: true }) as string[]).filter((name) => name.endsWith(suffix)).map((name) => name.slice(0, -suffix.length)).sort();
  }

  /** Where the bytes of an object lie. */
  fileOf(name: string): string {
    return join(this.#directory, bucket, `${name}._S3rver_object`);
  }

  async start(): Promise<void> {
    if (this.#port === 0) [this.#port, this.#serverPort] = [await freePort(), await freePort()];
    const child = spawn(process.execPath, ['--no-deprecation', program, '--silent', '-a', '127.0.0.1', '-p', String(this.#serverPort), '-d', this.#directory, '--configure-bucket', bucket], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    let log = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (log = (log + text).slice(-10_000)));
    running.add(child);
    child.once('exit', () => running.delete(child));
    for (const deadline = Date.now() + 20_000; ; ) {
      if (child.exitCode !== null || Date.now() > deadline) throw new Error(`the S3 server did not start:\n${log}`);
      const answers = await fetch(`http://127.0.0.1:${this.#serverPort}`).then(
        async (response) => (await response.text(), true),
        () => false,
      );
      if (answers) break;
      await sleep(20);
    }
    this.#front = new ObjectStoreFront(secret, this.#serverPort);
    await this.#front.listen(this.#port);
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child === null) return;
    this.#child = null;
    await this.#front?.close();
    this.#front = null;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

const running = new Set<ChildProcess>();
const directories = new Set<string>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});
