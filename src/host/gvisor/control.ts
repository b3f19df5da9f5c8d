import { connect } from 'node:net';

/** Nobody who understands the call answers there: it has had no effect. */
export class ControlUnavailable extends Error {
  override name = 'ControlUnavailable';
}

/** The call may yet have its effect. */
export class ControlTimeout extends Error {
  override name = 'ControlTimeout';
}

export interface ControlCall {
  readonly method: string;
  readonly deadlineMs: number;
  /** Hears of a success after the deadline. */
  readonly onLate?: () => void;
}

const answerLimit = 65_536;
/** How long a late call is waited for. */
const lateMs = 10 * 60_000;

/**
 * One call to a guest's kernel over its control socket. That is what the `runsc` command does too, forty times slower. A call and its
 * answer are one JSON object each.
 */
export function callKernel(socketPath: string, { method, deadlineMs, onLate }: ControlCall): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    let text = '';
    let sent = false;
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      reject(new ControlTimeout(`the guest's kernel did not answer ${method} within ${deadlineMs / 1000} s`));
      if (!sent) return void socket.destroy();
      socket.unref();
      socket.setTimeout(lateMs, () => socket.destroy());
    }, deadlineMs);
    const settle = (failure: Error | null): void => {
      clearTimeout(timer);
      if (failure === null) resolve();
      else reject(failure);
    };
    socket.on('connect', () => {
      sent = true;
      socket.write(JSON.stringify({ method, arg: null }));
    });
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      const answer = parseAnswer(text);
      if (answer === null && text.length < answerLimit) return;
      const failure = answer === null ? new ControlUnavailable(`${method} was not answered as expected`) : failureOf(method, answer);
      socket.destroy();
      if (late && failure === null) onLate?.();
      settle(failure);
    });
    socket.on('error', (cause) => settle(sent ? new Error(`the guest's kernel broke off during ${method}: ${cause.message}`, { cause }) : new ControlUnavailable(cause.message, { cause })));
    socket.on('close', () => settle(new Error(`the guest's kernel ended during ${method}`)));
  });
}

interface Answer {
  readonly success?: unknown;
  readonly err?: unknown;
}

/** Null while the answer is not complete. */
function parseAnswer(text: string): Answer | null {
  try {
    return (JSON.parse(text) ?? {}) as Answer;
  } catch {
    return null;
  }
}

function failureOf(method: string, { success, err }: Answer): Error | null {
  if (success === true) return null;
  if (success !== false || err === 'unknown method') return new ControlUnavailable(`${method} is not known there`);
  return new Error(`${method} failed: ${String(err).slice(0, 500)}`);
}
