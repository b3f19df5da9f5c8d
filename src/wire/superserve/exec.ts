import { StringDecoder } from 'node:string_decoder';
import { Type } from 'typebox';
import { PaddockError } from '../../core/errors.ts';
import type { OutputEvent } from '../../core/host.ts';
import type { RunInput } from '../../core/processes.ts';
import { frameComment } from '../event-stream.ts';
import { bodyReader, optional, strict, StringMap } from './body.ts';
import { badRequest } from './errors.ts';

export const ExecBody = strict({
  command: optional(Type.String()),
  args: optional(Type.Array(Type.String())),
  env: optional(StringMap),
  working_dir: optional(Type.String()),
  timeout_s: optional(Type.Number()),
});
const readBody = bodyReader(ExecBody);

/** Seconds a command may run when its request does not say. */
const defaultTimeoutSeconds = 30;
/** What a command that ran out of time is said to have exited with, as timeout(1) does. */
export const timedOutCode = 124;

/** Bytes of both streams together that an answer holds. */
const mostOutput = 8 * 1024 * 1024;
/** The SDK refuses answers above 10 MiB of JSON, where a line feed takes two bytes and most control characters six. */
const mostEscaped = 9.5 * 1024 * 1024;
const truncatedNotice = '\n[output truncated: a command answers with at most 8 MiB; use /exec/stream, or write to a file]\n';

/**
 * A request of `/exec`, `/exec/stream` or the first frame of `/exec/connect` (contract, sections 5.1 and 10.2) in the words of the core.
 *
 * @param timeoutSeconds when the request does not say; 0 for none.
 */
export function runInput(received: unknown, timeoutSeconds = defaultTimeoutSeconds): RunInput {
  const { command, args, env, working_dir: cwd, timeout_s: timeout } = readBody(received);
  if (command === undefined || command === '') throw badRequest('command', 'is required and must not be empty');
  if (timeout !== undefined && timeout < 0) throw badRequest('timeout_s', `must be seconds above 0, but is ${timeout}`);
  return {
    // Agents of before know no argv; they make about the same of this.
    cmd: args === undefined ? command : [command, ...args].map(quoted).join(' '),
    argv: args === undefined ? ['/bin/sh', '-c', command] : [command, ...args],
    ...(cwd ? { cwd } : {}),
    ...(env === undefined ? {} : { envs: env }),
    timeoutSeconds: timeout || timeoutSeconds,
  };
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** The answer of `POST /exec`. What a command wrote before its time was up is in it. */
export async function collect(events: AsyncIterable<OutputEvent>): Promise<object> {
  const output = { stdout: new Text(), stderr: new Text() };
  let left = mostOutput;
  let leftEscaped = mostEscaped;
  let truncated = false;
  let exitCode = timedOutCode;
  try {
    for await (const event of events) {
      if (event.type === 'exit') exitCode = event.exit.exitCode;
      if (event.type === 'gap') truncated = true;
      if (event.type !== 'stdout' && event.type !== 'stderr') continue;
      if (left === 0) {
        truncated = true; // what goes beyond is taken and thrown away, so that the command can go on
        continue;
      }
      const kept = fitting(event.data, left, leftEscaped);
      truncated ||= kept.length < event.data.length;
      left = kept.length < event.data.length ? 0 : left - kept.length;
      leftEscaped -= escapedLength(kept);
      output[event.type].add(kept);
    }
  } catch (error) {
    if (!isTimeout(error)) throw error;
  }
  const stderr = output.stderr.end();
  return { stdout: output.stdout.end(), stderr: truncated ? stderr + truncatedNotice : stderr, exit_code: exitCode, ...(truncated ? { truncated: true } : {}) };
}

export function isTimeout(error: unknown): boolean {
  return error instanceof PaddockError && error.code === 'deadline_exceeded';
}

/** The beginning of these bytes that fits both bounds. */
function fitting(data: Buffer, bytes: number, escaped: number): Buffer {
  let kept = data.subarray(0, bytes);
  while (escapedLength(kept) > escaped) kept = kept.subarray(0, Math.floor(kept.length / 2));
  return kept;
}

/** Bytes as JSON text, at most: invalid UTF-8 becomes U+FFFD, three bytes for one. */
function escapedLength(data: Buffer): number {
  let length = data.length;
  for (const byte of data) {
    if (byte < 0x20) length += byte === 0x0a || byte === 0x09 || byte === 0x0d || byte === 0x08 || byte === 0x0c ? 1 : 5;
    else if (byte === 0x22 || byte === 0x5c) length += 1;
    else if (byte >= 0x80) length += 2;
  }
  return length;
}

class Text {
  readonly #decoder = new StringDecoder('utf8');
  readonly #parts: string[] = [];
  add(data: Buffer): void {
    this.#parts.push(this.#decoder.write(data));
  }
  end(): string {
    this.#parts.push(this.#decoder.end());
    return this.#parts.join('');
  }
}

/** Bytes of output in one event, so that no line grows without bound. */
const chunkBytes = 48 * 1024;

/**
 * The frames of `POST /exec/stream` (contract, section 10.1). A command that was lost on the way ends without an event that says `finished`:
 * the SDK takes any other end for exit code 0.
 */
export async function* streamFrames(events: AsyncIterable<OutputEvent>, draining: AbortSignal): AsyncGenerator<string> {
  const decoders = { stdout: new StringDecoder('utf8'), stderr: new StringDecoder('utf8') };
  const text = (stream: 'stdout' | 'stderr', data: string): string => (data === '' ? '' : frame({ [stream]: data }));
  const rest = (): string => text('stdout', decoders.stdout.end()) + text('stderr', decoders.stderr.end());
  try {
    for await (const event of events) {
      if (event.type === 'stdout' || event.type === 'stderr') {
        for (let from = 0; from < event.data.length; from += chunkBytes) {
          const piece = text(event.type, decoders[event.type].write(event.data.subarray(from, from + chunkBytes)));
          if (piece !== '') yield piece;
        }
      } else if (event.type === 'gap') {
        yield frameComment(`${event.lostBytes} bytes were dropped because nobody read them in time`);
      } else if (event.type === 'exit') {
        yield rest() + frame({ exit_code: event.exit.exitCode, finished: true });
        return;
      }
    }
    yield rest() + lostFrame('the connection to the command was lost');
  } catch (error) {
    yield rest() + (isTimeout(error) ? frame({ exit_code: timedOutCode, finished: true }) : lostFrame(draining.aborted ? 'the server is being stopped' : PaddockError.from(error).message));
  }
}

/** A command that could not be started, as the whole of a stream. */
export async function* failedStart(error: PaddockError): AsyncGenerator<string> {
  yield frame({ error: error.message, code: error.code === 'invalid_argument' ? 'bad_request' : 'exec_failed', finished: true });
}

/** What the guest refuses before anything has run, and a stream or socket that has begun must say in its own way. */
export function isFailedStart(error: unknown): error is PaddockError {
  return error instanceof PaddockError && ['invalid_argument', 'permission_denied', 'unprocessable', 'rate_limited'].includes(error.code);
}

function lostFrame(error: string): string {
  return frame({ error, code: 'exec_failed' });
}

/** One event, of now unless it says otherwise: one `data:` line; JSON leaves these three characters as they are, and some readers end a line at each. */
export function frame(fields: object): string {
  const json = JSON.stringify({ timestamp: new Date().toISOString(), ...fields });
  return `data: ${json.replaceAll(/[\u0085\u2028\u2029]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)}\n\n`;
}
