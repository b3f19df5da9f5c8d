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
}

const outputLimit = 4 * 1024 * 1024;

/** Runs a system program to its end and returns its standard output. Bounded in time and output. */
export function runTool(command: string, args: readonly string[], options: ToolOptions = {}): Promise<string> {
  const { input, timeoutMs = 15_000 } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'] });
    const stdout: Buffer[] = [];
    let size = 0;
    let stderr = '';
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    child.stdout?.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > outputLimit) child.kill('SIGKILL');
      else stdout.push(chunk);
    });
    child.stderr?.on('data', (chunk: Buffer) => {
      if (stderr.length < 16_384) stderr += chunk.toString();
    });
    child.on('error', (cause) => {
      clearTimeout(timer);
      reject(new ToolError(command, null, cause.message, { cause }));
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      if (code === 0) resolve(Buffer.concat(stdout).toString());
      else reject(new ToolError(`${command} ${args.join(' ').slice(0, 200)}`, code, stderr));
    });
    if (input !== undefined) {
      child.stdin?.on('error', () => {}); // the exit code tells; EPIPE says nothing more
      child.stdin?.end(input);
    }
  });
}
