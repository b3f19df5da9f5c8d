import { setTimeout as sleep } from 'node:timers/promises';
import { isEnding } from '../../core/templates/failures.ts';
import type { LogLine, TemplateBuild } from '../../core/templates/template.ts';
import { frame } from './exec.ts';

const waitingEveryMs = 2000;

/**
 * The frames of a build's log (contract, section 10.4): everything from the beginning, then live. The last one says how the build ended; it
 * is missing when the server stops first.
 *
 * @param now the build as it is at this moment.
 */
export async function* logFrames(lines: AsyncIterable<LogLine>, now: () => Promise<TemplateBuild>, signal: AbortSignal): AsyncGenerator<string> {
  const iterator = lines[Symbol.asyncIterator]();
  try {
    for (let next = iterator.next(); ; ) {
      const result = await atMost(waitingEveryMs, next);
      if (signal.aborted) return;
      if (result === null) {
        if ((await now()).status === 'pending') yield frame({ stream: 'system', text: 'build queued, waiting for dispatch' });
        continue;
      }
      // The end is told once, with its status.
      if (result.done === true || isEnding(result.value)) break;
      const { at, stream, text } = result.value;
      yield frame({ timestamp: new Date(at).toISOString(), stream, text: stream === 'system' ? text : `${text}\n` });
      next = iterator.next();
    }
    // Once the log has come to its end the build is over.
    while ((await iterator.next()).done !== true);
    if (signal.aborted) return;
    const { status, errorMessage } = await now();
    yield frame({ stream: 'system', text: status === 'ready' ? 'template ready' : (errorMessage ?? status), finished: true, status });
  } finally {
    await iterator.return?.();
  }
}

/** Null when it takes longer. */
async function atMost<T>(ms: number, work: Promise<T>): Promise<T | null> {
  const over = new AbortController();
  try {
    return await Promise.race([work, sleep(ms, null, { signal: over.signal })]);
  } finally {
    over.abort();
  }
}
