import type { WebSocket } from 'ws';
import { PaddockError } from '../../core/errors.ts';
import type { OutputEvent, StartedProcess } from '../../core/host.ts';
import { bytesOf, Inbox, sendFrame, StdinWriter } from './frames.ts';
import { shut, type SessionContext } from './session.ts';

const initialSize = { cols: 80, rows: 24 } as const;
/** Milliseconds without a byte in either direction. */
const idleMs = 10 * 60_000;
const longestSeconds = 4 * 3600;
const signals: ReadonlySet<string> = new Set(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']);

/** `GET /terminal` (contract, section 10.3): a login shell, its bytes both ways. It ends with its connection. */
export async function terminalSession(socket: WebSocket, context: SessionContext): Promise<void> {
  const { processes, principal, id } = context;
  const left = new AbortController();
  socket.once('close', () => left.abort(new PaddockError('conflict', 'the client has left')));
  const inbox = new Inbox(socket);
  // The clients reconnect on every close but 1000 and 1001.
  const idle = setTimeout(() => shut(socket, 1000, 'the terminal was idle for 10 minutes'), idleMs);
  let terminal: StartedProcess | null = null;
  try {
    terminal = await processes.startPty(principal, { id }, { ...initialSize, timeoutSeconds: longestSeconds }, left.signal);
    const output = await processes.ptyOutput(principal, { id }, terminal.pid, left.signal);
    void obey(inbox, terminal, context, left.signal, idle);
    await show(output, socket, idle);
    shut(socket, 1000, 'the shell has ended');
  } catch (thrown) {
    if (!left.signal.aborted) shut(socket, 1011, PaddockError.from(thrown).message);
  } finally {
    clearTimeout(idle);
    inbox.close();
    // Its signal has been used up.
    if (terminal !== null) await processes.killPty(principal, { id }, terminal.pid, AbortSignal.timeout(5000)).catch(() => false);
  }
}

async function show(output: AsyncIterable<OutputEvent>, socket: WebSocket, idle: NodeJS.Timeout): Promise<void> {
  for await (const event of output) {
    if (event.type !== 'terminal' && event.type !== 'stdout') continue;
    idle.refresh();
    await sendFrame(socket, event.data);
  }
}

async function obey(inbox: Inbox, terminal: StartedProcess, { processes, principal, id }: SessionContext, signal: AbortSignal, idle: NodeJS.Timeout): Promise<void> {
  const stdin = new StdinWriter((data) => processes.writePty(principal, { id }, terminal.pid, data, signal), signal);
  for (let frame = await inbox.next(0); frame !== null; frame = await inbox.next(0)) {
    idle.refresh();
    const data = bytesOf(frame.data);
    if (frame.isBinary) await stdin.write(data);
    else control(data.toString(), terminal, { processes, principal, id }, signal);
  }
}

/** What is unknown or makes no sense is left alone: nobody waits for an answer. */
function control(text: string, terminal: StartedProcess, { processes, principal, id }: SessionContext, signal: AbortSignal): void {
  let message: { readonly type?: unknown; readonly name?: unknown; readonly cols?: unknown; readonly rows?: unknown } | null;
  try {
    message = JSON.parse(text) as typeof message;
  } catch {
    return;
  }
  const done =
    message?.type === 'resize'
      ? processes.resizePty(principal, { id }, terminal.pid, { cols: Number(message.cols), rows: Number(message.rows) }, signal)
      : message?.type === 'signal' && signals.has(String(message.name))
        ? processes.signal(principal, { id }, terminal.id, String(message.name), signal)
        : Promise.resolve();
  done.catch(() => {});
}
