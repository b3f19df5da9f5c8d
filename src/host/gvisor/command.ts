import { spawn, type SpawnOptions } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import type { Artefact } from '../artefacts.ts';
import type { Slot } from '../slots.ts';
import { runTool } from '../tool.ts';

/**
 * runsc looks for this file to tell whether it is in the machine's own network namespace. Kernels from 6.13 on show it
 * in every namespace, and runsc then refuses to start; an empty file system over it, seen by runsc alone, helps.
 */
const launcher = 'mount -t tmpfs -o size=4k,mode=0555 none /proc/sys/net && exec "$@"';

const errorLimit = 4096;

/** Where what a guest writes goes: to an overlay on its slot's disk, or into its root itself. */
export type RootWriting = 'overlay' | 'direct';

export interface Deadline {
  readonly signal: AbortSignal;
  readonly deadlineMs: number;
}

/** A runsc command that failed; `output` is how what it said begins: the reason comes first, and may be followed by pages of stack. */
export class RunscError extends Error {
  readonly output: string;

  constructor(command: string, how: string, output: string) {
    super(`runsc ${command} ended with ${how}`);
    this.name = 'RunscError';
    this.output = output.trim();
  }
}

/** The `runsc` command of one build, with the flags that we want and this build knows. */
export class Runsc {
  readonly build: string;
  readonly #path: string;
  readonly #root: string;
  readonly #flags: readonly string[];
  readonly #saveFlags: readonly string[];

  private constructor(build: Artefact, root: string, flags: readonly string[], saveFlags: readonly string[]) {
    this.build = build.digest;
    this.#path = build.path;
    this.#root = root;
    this.#flags = flags;
    this.#saveFlags = saveFlags;
  }

  static async open(build: Artefact, root: string): Promise<Runsc> {
    // These exit with an error status on some builds; their text is what counts.
    const read = (...args: string[]): Promise<string> => runTool('/bin/sh', ['-c', '"$0" "$@" 2>&1; true', build.path, ...args]);
    const [global, checkpoint] = await Promise.all([read('flags'), read('checkpoint', '--help')]);
    return new Runsc(build, root, supported(global, wantedFlags), supported(checkpoint, wantedSaveFlags));
  }

  /** Starts a guest in its slot: `run` or `restore`. The guest keeps the console it is given. Rejects with RunscError. */
  async launch(slot: Slot, command: readonly string[], limits: Deadline, written: RootWriting = 'overlay'): Promise<void> {
    const console = openSync(slot.console, constants.O_RDWR | constants.O_NONBLOCK);
    try {
      const args = [
        '--mount', '--propagation', 'slave', '--', '/bin/sh', '-c', launcher, 'runsc', this.#path,
        '--root', this.#root, '--network=sandbox', '--platform=systrap', `--overlay2=${written === 'direct' ? 'none' : `root:dir=${slot.disk.mount}`}`,
        '--log', join(slot.dir, 'runsc.log'), '--panic-log', join(slot.dir, 'panic.log'), ...this.#flags, ...command,
      ];
      const env = { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin' };
      await complete('unshare', args, command[0]!, { stdio: ['ignore', console, console], detached: true, env }, limits);
    } finally {
      closeSync(console);
    }
  }

  /** Writes the guest's state into an empty directory, whether the guest stands still or not, and leaves it as it is. */
  async save(container: string, dir: string, limits: Deadline): Promise<void> {
    await this.#run(['checkpoint', '--leave-running', ...this.#saveFlags, '--image-path', dir, container], limits);
  }

  async pause(container: string, limits: Deadline): Promise<void> {
    await this.#run(['pause', container], limits);
  }

  async resume(container: string, limits: Deadline): Promise<void> {
    await this.#run(['resume', container], limits);
  }

  async #run(command: readonly string[], limits: Deadline): Promise<void> {
    await complete(this.#path, ['--root', this.#root, ...this.#flags, ...command], command[0]!, { stdio: ['ignore', 'ignore', 'pipe'] }, limits);
  }
}

const wantedFlags: readonly [name: string, flag: string][] = [
  ['net-disconnect-ok', '--net-disconnect-ok'],
  ['cpu-num-from-quota', '--cpu-num-from-quota'],
  ['host-uds', '--host-uds=none'],
  ['host-fifo', '--host-fifo=none'],
];

/** Compressing takes ten times as long as writing. */
const wantedSaveFlags: readonly [name: string, flag: string][] = [
  ['compression', '--compression=none'],
  ['exclude-committed-zero-pages', '--exclude-committed-zero-pages'],
];

function supported(help: string, wanted: readonly [name: string, flag: string][]): string[] {
  return wanted.filter(([name]) => new RegExp(`^\\s+-${name}\\b`, 'm').test(help)).map(([, flag]) => flag);
}

/** Runs a program to its end, which comes at the deadline or the signal at the latest. */
function complete(program: string, args: readonly string[], command: string, options: SpawnOptions, { signal, deadlineMs }: Deadline): Promise<void> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, options);
    let output = '';
    let overdue = false;
    child.stderr?.on('data', (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(0, errorLimit);
    });
    const stop = (): void => {
      if (child.pid !== undefined) child.kill('SIGKILL');
    };
    const timer = setTimeout(() => {
      overdue = true;
      stop();
    }, deadlineMs);
    signal.addEventListener('abort', stop, { once: true });
    const settle = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
    };
    const finish = (code: number | null, killedBy: string | null): void => {
      settle();
      child.stderr?.destroy();
      if (code === 0) resolve();
      else reject(new RunscError(command, overdue ? `its deadline of ${deadlineMs / 1000} s` : (killedBy ?? `exit code ${code}`), output));
    };
    child.on('error', (cause) => {
      settle();
      reject(new Error(`${program} could not be started: ${cause.message}`, { cause }));
    });
    child.on('close', finish);
    // What runsc leaves behind may hold the pipe for ever.
    child.on('exit', (code, killedBy) => setTimeout(() => finish(code, killedBy), 200).unref());
  });
}
