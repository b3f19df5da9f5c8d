import { requestId } from '../request-context.ts';
import { pino, type Logger } from 'pino';
import type { LogLevel } from '../config.ts';

/** The server's log, and a way to get the last lines out before the process ends. */
export interface ServerLog {
  readonly log: Logger;
  flush(): void;
}

/**
 * One JSON line per event on standard error. Written outside the path of requests; what errors carry along is cut down to type, message and
 * stack, so that no header, body or environment gets in.
 */
export function openLog(level: LogLevel): ServerLog {
  const destination = pino.destination({ fd: 2, sync: false });
  destination.on('error', () => {}); // whoever read the log has left; the server goes on
  const log = pino({ level, base: null, mixin: namedRequest, serializers: { err: describeError, req: () => undefined, res: () => undefined } }, destination);
  return {
    log,
    flush: () => {
      try {
        destination.flushSync();
      } catch {
        // Not open yet, or gone: nothing can be said about that on a log.
      }
    },
  };
}

/** What is logged while a request is answered names it, whichever part of the server says it. */
function namedRequest(): object {
  const reqId = requestId();
  return reqId === null ? {} : { reqId };
}

function describeError(error: unknown): object {
  if (!(error instanceof Error)) return { message: withoutSecrets(String(error)) };
  const { code } = error as { code?: unknown };
  return { type: error.name, message: withoutSecrets(error.message), ...(typeof code === 'string' ? { code } : {}), stack: withoutSecrets(error.stack ?? ''), ...(error.cause === undefined ? {} : { cause: describeError(error.cause) }) };
}

/**
 * What an error of another program's may repeat: API keys, the credentials of an `Authorization`, and what a URL says besides its host and path.
 * Nothing of ours puts them into a message; this is for what we call.
 */
export function withoutSecrets(text: string): string {
  return text
    .replaceAll(/\b(dcl|ss_live|ss_test)_[\w-]{8,}/g, '$1_[hidden]')
    .replaceAll(/\b(bearer|basic) +[\w.~+/=-]{8,}/gi, '$1 [hidden]')
    .replaceAll(/\b([a-z][a-z0-9+.-]*:\/\/)[^\s/@?#]+@/gi, '$1[hidden]@')
    .replaceAll(/(:\/\/[^\s?#"']*)\?[^\s"']*/g, '$1?[hidden]');
}
