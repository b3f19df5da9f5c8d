import { spawn } from 'node:child_process';

/** A system program that failed: which one, how, and the end of what it wrote to standard error. */
export class ToolError extends Error {
  readonly command: string;
  readonly exitCode: number | null;
  readonly stderr: string;

  constructor(command: string, exitCode: number | null, stderr: string, options?: ErrorOptions) {
    super(`${command} failed (${exitCode === null ? 'killed or not started' : `exit ${exitCode}`}): ${stderr.trim().slice(-2000)}`, options);
    this.name = 'ToolError';
    this.command = command;
    this.exitCode = exitCode;
    this.stderr = stderr;
  }
}

export interface ToolOptions {
  readonly input?: string;
  /** Milliseconds until the program is killed. Default 15,000. */
  readonly timeoutMs?: number;
  /** The program is killed when it says so, and the promise rejects with its reason. */
  readonly signal?: AbortSignal;
  readonly cwd?: string;
  /** Added to this process's own. */
  readonly env?: Readonly<Record<string, string>>;
}

const outputLimit = 4 * 1024 * 1024;

/** Runs a system program to its end and returns its standard output. Bounded in time and output. */
export function runTool(command: string, args: readonly string[], options: ToolOptions = {}): Promise<string> {
  const { input, timeoutMs = 15_000, signal, cwd, env } = options;
  if (signal?.aborted) return Promise.reject(signal.reason as Error);
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'], ...(env === undefined ? {} : { env: { ...process.env, ...env } }) });
    const stdout: Buffer[] = [];
    let size = 0;
    let stderr = '';
    const kill = (): void => void child.kill('SIGKILL');
    const timer = setTimeout(kill, timeoutMs);
    signal?.addEventListener('abort', kill, { once: true });
    const settle = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', kill);
    };
    child.stdout?.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > outputLimit) kill();
      else stdout.push(chunk);
    });
    child.stderr?.on('data', (chunk: Buffer) => {
      if (stderr.length < 16_384) stderr += chunk.toString();
    });
    child.on('error', (cause) => {
      settle();
      reject(new ToolError(command, null, cause.message, { cause }));
    });
    child.on('close', (code) => {
      settle();
      if (code === 0) resolve(Buffer.concat(stdout).toString());
      else if (signal?.aborted) reject(signal.reason as Error);
      else reject(new ToolError(`${command} ${args.join(' ').slice(0, 200)}`, code, stderr));
    });
    if (input !== undefined) {
      child.stdin?.on('error', () => {}); // the exit code tells; EPIPE says nothing more
      child.stdin?.end(input);
    }
  });
}
