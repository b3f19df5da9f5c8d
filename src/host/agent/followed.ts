import { setTimeout as sleep } from 'node:timers/promises';
import type { OutputEvent } from '../../core/host.ts';
import type { AgentAnswer, AgentConnection } from './connection.ts';
import { decodeFrames } from './frames.ts';

const firstPauseMs = 20;
const longestPauseMs = 1_000;
/** How long a guest that lives is tried again after a connection broke. */
const patienceMs = 10_000;

export interface OutputPlace {
  /** The process; null until the answer that starts it has told. */
  readonly id: string | null;
  readonly after: number;
  readonly follow: boolean;
}

/**
 * The output of a process, over as many connections as it takes: while the guest lives, and its client was not ended, a broken
 * connection is replaced by one that goes on after the last entry given out. Ends without an exit event only without `follow`.
 *
 * @param answer the first connection, when there is one already.
 */
export async function* readOutput(connection: AgentConnection, { id, after, follow }: OutputPlace, signal: AbortSignal, answer: AgentAnswer | null = null): AsyncGenerator<OutputEvent> {
  let wasAnswered = answer !== null;
  let pauseMs = 0;
  let patience = 0;
  for (;;) {
    const { holds } = connection;
    const since = performance.now();
    let progress = false;
    try {
      answer ??= await connection.exchange({ method: 'GET', path: `/v1/processes/${id}/output?after=${after}&follow=${follow}`, kind: 'follow', signal });
      wasAnswered = true;
      for await (const event of decodeFrames(answer.body)) {
        progress = true;
        if (event.type === 'started') {
          id = event.process.id;
          answer.becomes('follow');
        } else after = event.entry;
        yield event;
      }
      return;
    } catch (reason) {
      // A process that nobody has named cannot be found again.
      if (id === null || !connection.isBroken(reason, signal)) throw connection.translate(reason, true);
      if (connection.isHeld || connection.holds !== holds) {
        pauseMs = patience = 0;
      } else {
        if (!wasAnswered) throw connection.translate(reason, false);
        const now = performance.now();
        if (progress || patience === 0 || now - since > patienceMs) {
          pauseMs = 0;
          patience = now + patienceMs;
        }
        pauseMs = Math.min(Math.max(firstPauseMs, pauseMs * 2), longestPauseMs);
        if (now + pauseMs > patience) throw connection.translate(reason, true);
        await sleep(pauseMs, undefined, { signal: AbortSignal.any([signal, connection.ended]) }).catch((aborted: unknown) => {
          throw connection.translate(signal.aborted ? signal.reason : aborted, true);
        });
      }
    } finally {
      answer?.body.destroy();
      answer = null;
    }
  }
}
