import { spawn, type ChildProcess } from 'node:child_process';
import { setPriority } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';

const setUp = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), 'scripts', 'run.mjs');
const keptOutput = 8192;
const lowestPriority = 19;

/** Builds templates of the catalogue that are made on demand, by the program that set this machine up; one after the other, because that holds a lock. */
export class BuiltInTemplates {
  readonly #config: Config;
  readonly #log: Logger;
  readonly #children = new Set<ChildProcess>();
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(config: Config, log: Logger) {
    this.#config = config;
    this.#log = log;
  }

  /** Resolves when the template is there. Rejects with a sentence for whoever asked for it. */
  build(name: string): Promise<void> {
    const built = this.#turn.then(() => this.#build(name));
    this.#turn = built.catch(() => undefined);
    return built;
  }

  /** Ends what is being built; the next demand begins anew. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { pid } of this.#children) if (pid !== undefined) process.kill(-pid, 'SIGKILL');
    await this.#turn;
  }

  async #build(name: string): Promise<void> {
    if (this.#closed) throw new Error('the server is stopping.');
    const startedAt = Date.now();
    this.#log.info({ template: name }, 'a template is built because it was asked for');
    try {
      await this.#run(name);
      this.#log.info({ template: name, ms: Date.now() - startedAt }, 'the template is ready');
    } catch (error) {
      if (!this.#closed) this.#log.error({ err: error, template: name }, 'the template could not be built');
      throw error;
    }
  }

  #run(name: string): Promise<void> {
    const { artefactsDir, dataDir } = this.#config;
    const child = spawn(process.execPath, [setUp, 'setup', name], {
      detached: true, // so that it can be ended with all that it has started
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, PADDOCK_DATA_DIR: dataDir, PADDOCK_ARTEFACTS_DIR: artefactsDir },
    });
    this.#children.add(child);
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output = (output + text).slice(-keptOutput)));
    return new Promise((resolve, reject) => {
      child.on('spawn', () => setPriority(child.pid!, lowestPriority));
      child.on('error', reject);
      child.on('close', (code, signal) => {
        this.#children.delete(child);
        if (code === 0) resolve();
        else reject(new Error(lastSentence(output) || `the set-up was ended by ${signal ?? `code ${code}`}.`));
      });
    });
  }
}

/** Set-up ends with a line for the user; what it read from others stands above. */
function lastSentence(output: string): string {
  return output.trim().split('\n').at(-1)?.replace(/^paddock: /, '') ?? '';
}
