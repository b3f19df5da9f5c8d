import type { RawData, WebSocket } from 'ws';
import { PaddockError } from '../../core/errors.ts';
import type { OutputEvent } from '../../core/host.ts';
import { isTimeout, runInput, timedOutCode } from './exec.ts';
import { bytesOf, Inbox, sendFrame, StdinWriter } from './frames.ts';
import { shut, type SessionContext } from './session.ts';

const firstFrameMs = 10_000;
/** Seconds a session may last at most. */
const longestSeconds = 12 * 3600;

const stdinChannel = 0;
const channels = { stdout: 1, stderr: 2 } as const;
const signals: ReadonlySet<string> = new Set(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']);

/**
 * `GET /exec/connect` (contract, section 10.2): the first frame starts a process, then input, output and signals go both ways until it ends.
 * Whoever closes the connection ends the process.
 */
export async function execSession(socket: WebSocket, context: SessionContext): Promise<void> {
  const inbox = new Inbox(socket);
  const first = await inbox.next(firstFrameMs);
  if (first === null) return shut(socket, 1008, 'the first frame, which starts the command, did not come within 10 s');
  if (first.isBinary) return shut(socket, 1003, 'the first frame must be text: {"command": "…"}');
  const left = new AbortController();
  socket.once('close', () => left.abort(new PaddockError('conflict', 'the client has left')));
  let started = false;
  let end: object;
  try {
    const input = runInput(parseJson(first.data), longestSeconds);
    const events = await context.processes.stream(context.principal, { id: context.id }, { ...input, stdin: true }, left.signal);
    started = true;
    end = await follow(events, socket, inbox, context, left.signal);
  } catch (thrown) {
    if (left.signal.aborted) return;
    const error = PaddockError.from(thrown);
    // Without a last frame: the SDK would take any that says finished for exit code 0.
    if (started && !isTimeout(error)) return shut(socket, 1011, error.message);
    end = isTimeout(error) ? { exit_code: timedOutCode, finished: true } : { error: error.message, code: error.code === 'invalid_argument' ? 'bad_request' : 'exec_failed', finished: true };
  } finally {
    inbox.close();
  }
  await sendFrame(socket, JSON.stringify(end));
  shut(socket, 1000, 'command exited');
}

async function follow(events: AsyncIterable<OutputEvent>, socket: WebSocket, inbox: Inbox, context: SessionContext, signal: AbortSignal): Promise<object> {
  for await (const event of events) {
    if (event.type === 'started') void obey(inbox, event.process.id, context, signal);
    if (event.type === 'stdout' || event.type === 'stderr') await sendFrame(socket, Buffer.concat([Buffer.of(channels[event.type]), event.data]));
    if (event.type === 'exit') return { exit_code: event.exit.exitCode, finished: true };
  }
  throw new PaddockError('unprocessable', 'the connection to the command was lost');
}

/** What the client sends, in its order; input waits for a process that is slow to read, signals do not wait for input. */
async function obey(inbox: Inbox, processId: string, { processes, principal, id }: SessionContext, signal: AbortSignal): Promise<void> {
  const stdin = new StdinWriter((data) => processes.writeStdio(principal, { id }, processId, data, signal), signal);
  for (let frame = await inbox.next(0); frame !== null; frame = await inbox.next(0)) {
    const data = bytesOf(frame.data);
    if (frame.isBinary) {
      if (data[0] === stdinChannel && data.length > 1) await stdin.write(data.subarray(1));
      continue;
    }
    const message = parseObject(data);
    // What is unknown is left alone: a newer client may say it.
    if (message?.['type'] === 'stdin_close') stdin.end(() => processes.closeStdio(principal, { id }, processId, signal));
    if (message?.['type'] === 'signal' && signals.has(String(message['name']))) {
      processes.signal(principal, { id }, processId, String(message['name']), signal).catch(() => false); // it has ended
    }
  }
}

function parseJson(data: RawData): unknown {
  try {
    return JSON.parse(bytesOf(data).toString());
  } catch {
    return undefined; // the reader of bodies has the words for it
  }
}

function parseObject(data: Buffer): Record<string, unknown> | null {
  const value = parseJson(data);
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null;
}
