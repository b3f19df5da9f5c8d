import { assertEnvs, assertProcessTimeout } from './create-input.ts';
import { PaddockError } from './errors.ts';
import type { ProcessKind, ProcessSpec } from './host.ts';
import type { CoreSettings } from './settings.ts';

export interface RunInput {
  /** A shell line. */
  readonly cmd: string;
  /** A program and its arguments, run without a shell; `cmd` must then mean about the same. */
  readonly argv?: readonly string[];
  readonly user?: string;
  readonly cwd?: string;
  readonly envs?: Readonly<Record<string, string>>;
  /** 0 means none. */
  readonly timeoutSeconds: number;
  readonly stdin?: boolean;
}

export interface PtyInput {
  /** Empty or absent: a login shell. */
  readonly cmd?: string;
  readonly user?: string;
  readonly cwd?: string;
  readonly envs?: Readonly<Record<string, string>>;
  readonly cols: number;
  readonly rows: number;
  readonly timeoutSeconds: number;
}

const longestUser = 256;
const longestPath = 4095;
const largestSide = 65_535;

/** What the guest is asked to start. Throws `invalid_argument` with the field and its limit. */
export function processSpec(kind: ProcessKind, input: RunInput, tag: string, settings: CoreSettings): ProcessSpec {
  if (input.cmd === '' && kind !== 'pty') throw invalid('cmd', 'must not be empty');
  assertText('cmd', input.cmd, settings.maxCommandBytes, 'Write a long script to a file and run that');
  if (input.user !== undefined) assertText('user', input.user, longestUser);
  if (input.cwd !== undefined) assertText('cwd', input.cwd, longestPath);
  for (const [i, argument] of (input.argv ?? []).entries()) assertText(`argv[${i}]`, argument, settings.maxCommandBytes);
  assertEnvs('envs', input.envs ?? {}, settings.maxEnvBytes);
  assertProcessTimeout('timeout', input.timeoutSeconds, settings);
  return {
    cmd: input.cmd,
    kind,
    stdin: input.stdin ?? false,
    tag,
    ...(input.argv === undefined ? {} : { argv: input.argv }),
    ...(input.user === undefined || input.user === '' ? {} : { user: input.user }),
    ...(input.cwd === undefined || input.cwd === '' ? {} : { cwd: input.cwd }),
    ...(input.envs === undefined ? {} : { env: input.envs }),
  };
}

export function ptySpec(input: PtyInput, tag: string, settings: CoreSettings): ProcessSpec {
  const { cmd = '', cols, rows, ...rest } = input;
  const size = assertedSize({ cols, rows });
  const spec = processSpec('pty', { ...rest, cmd, stdin: true }, tag, settings);
  return { ...spec, size, env: { TERM: 'xterm-256color', ...spec.env } };
}

export function assertedSize(size: { readonly cols: number; readonly rows: number }): { readonly cols: number; readonly rows: number } {
  for (const side of ['cols', 'rows'] as const) {
    if (!Number.isInteger(size[side]) || size[side] < 1 || size[side] > largestSide) throw invalid(`size.${side}`, `must be from 1 to ${largestSide}, not ${size[side]}`);
  }
  return { cols: size.cols, rows: size.rows };
}

function assertText(field: string, text: string, maxBytes: number, advice?: string): void {
  if (text.includes('\0')) throw invalid(field, 'holds a NUL character');
  const bytes = Buffer.byteLength(text);
  if (bytes > maxBytes) throw invalid(field, `takes ${bytes} bytes; the limit is ${maxBytes}${advice === undefined ? '' : `. ${advice}`}`);
}

function invalid(field: string, what: string): PaddockError {
  return new PaddockError('invalid_argument', `${field} ${what}`, { field });
}
