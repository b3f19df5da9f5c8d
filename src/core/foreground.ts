import { abandoned } from './abandoned.ts';
import type { Clock } from './clock.ts';
import type { Deadlines } from './deadlines.ts';
import { PaddockError } from './errors.ts';
import type { Guest, OutputEvent, ProcessExit, ProcessSpec, StartedProcess } from './host.ts';

const killedWithinMs = 5000;
const lastOutputWithinMs = 1000;
const startedWithinMs = 15_000;

export interface ForegroundDeps {
  readonly clock: Clock;
  readonly deadlines: Deadlines;
  /** Hears when the process falls due, until disposed. */
  readonly note: (process: StartedProcess, at: number) => Disposable;
}

/** How a foreground command came to its end, told once. */
export type ForegroundEnd = { readonly pid: number | null; readonly exit: ProcessExit | null; readonly durationMs: number };

let count = 0;

/**
 * Runs a command for as long as somebody wants it: when its time is up (`deadline_exceeded`), its caller leaves or the loop
 * is left, its process group is killed and forgotten. The first event is `started`, the last one `exit`. When the sandbox is paused the
 * caller is told (`conflict`), and the command goes on with the sandbox, for the time it has left.
 */
export async function* runForeground(
  deps: ForegroundDeps,
  guest: Guest,
  spec: ProcessSpec,
  timeoutSeconds: number,
  caller: AbortSignal,
  ended: (end: ForegroundEnd) => void,
): AsyncGenerator<OutputEvent, void, undefined> {
  const { clock, deadlines, note } = deps;
  const begun = clock.now();
  const key = `foreground ${++count}`;
  const leave = new AbortController();
  const timers: NodeJS.Timeout[] = [];
  let stopped: PaddockError | null = null;
  let process: StartedProcess | null = null;
  let noted: Disposable | null = null;
  let paused = false;
  let last: (OutputEvent & { readonly type: 'exit' }) | null = null;

  /** Kills the group, then lets its last output come for a moment. */
  const kill = (id: string): void => {
    guest.sendSignal(id, 'SIGKILL', AbortSignal.timeout(killedWithinMs)).catch(() => false);
    timers.push(setTimeout(() => leave.abort(), lastOutputWithinMs));
  };
  const stop = (reason: PaddockError): void => {
    if (stopped !== null) return;
    stopped = reason;
    if (process !== null) kill(process.id);
    // A start that is under way is waited for: only then is it known what to kill.
    else timers.push(setTimeout(() => leave.abort(), startedWithinMs));
  };
  const onLeft = (): void => stop(abandoned(caller));

  if (caller.aborted) throw abandoned(caller);
  caller.addEventListener('abort', onLeft, { once: true });
  if (timeoutSeconds > 0) deadlines.arm(key, begun + timeoutSeconds * 1000, () => stop(timedOut(timeoutSeconds)));
  try {
    for await (const event of guest.run(spec, leave.signal)) {
      if (event.type === 'started') {
        process = event.process;
        if (timeoutSeconds > 0) noted = note(process, begun + timeoutSeconds * 1000);
        // TypeScript does not see that `stop` runs while this waits.
        if ((stopped as PaddockError | null) !== null) kill(process.id);
      }
      if (event.type === 'exit') {
        last = event;
        break;
      }
      yield event;
    }
    if ((stopped as PaddockError | null) !== null) throw stopped;
    if (last === null) throw brokeOff();
    yield last;
  } catch (error) {
    paused = error instanceof PaddockError && error.detail.reason === 'paused';
    if (stopped !== null) throw stopped;
    throw process === null ? error : afterStart(error);
  } finally {
    deadlines.disarm(key);
    noted?.[Symbol.dispose]();
    caller.removeEventListener('abort', onLeft);
    for (const timer of timers) clearTimeout(timer);
    leave.abort();
    if (process !== null && !paused) {
      // Ends what may still run and frees its output. When it fails the guest is gone, or its own bounds will do it.
      guest.removeProcess(process.id, AbortSignal.timeout(killedWithinMs)).catch(() => false);
    }
    ended({ pid: process?.pid ?? null, exit: last?.exit ?? null, durationMs: clock.now() - begun });
  }
}

function timedOut(seconds: number): PaddockError {
  return new PaddockError('deadline_exceeded', `the command timed out after ${seconds} s and was killed; give a longer timeout, or run it in the background`);
}

function brokeOff(): PaddockError {
  return new PaddockError('unprocessable', 'the connection to the sandbox broke off before the command ended; the command was killed');
}

/** A failure after the start must not look as if nothing had happened: clients would run the command again. */
function afterStart(thrown: unknown): PaddockError {
  const error = PaddockError.from(thrown);
  return error.code === 'internal' || error.code === 'guest_unreachable'
    ? new PaddockError('unprocessable', `the command was started, but following it failed: ${error.message}`, {}, { cause: error })
    : error;
}
