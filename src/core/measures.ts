import { PaddockError, type ErrorCode } from './errors.ts';
import type { Lap } from './host.ts';
import type { ConnectionVerdict } from './network/egress.ts';
import type { EndReason, WireName } from './sandbox.ts';

/** What is measured as one piece of work. */
export type Work = 'create' | 'create_from_snapshot' | 'fork' | 'pause' | 'resume' | 'restore';

/**
 * Hears how the work of the core goes; whoever counts it implements this. It is told no ids, names or paths, because what it hears becomes
 * labels of which there must be few.
 */
export interface Measures {
  /** A stage is over, in seconds from the end of the one before. */
  stage(work: Work, stage: string, seconds: number): void;
  /** The work is over; `wire` is the one its sandbox was made through, `failure` null when it succeeded. */
  done(work: Work, wire: WireName, failure: ErrorCode | null, seconds: number): void;
  ended(reason: EndReason): void;
  /** Connections from inside, when they are in the log. */
  connections(verdict: ConnectionVerdict, matchRule: string, count: number): void;
}

/** For whoever does not count. */
export const unmeasured: Measures = Object.freeze({ stage: () => {}, done: () => {}, ended: () => {}, connections: () => {} });

/** Does some work and tells how it went. What it is given as `lap` tells the caller's too. */
export async function measured<T>(measures: Measures | undefined, work: Work, wire: WireName, lap: Lap | undefined, run: (lap: Lap) => Promise<T>): Promise<T> {
  if (measures === undefined) return run(lap ?? (() => {}));
  const begun = performance.now();
  let last = begun;
  const told: Lap = (stage) => {
    lap?.(stage);
    const now = performance.now();
    measures.stage(work, stage, (now - last) / 1000);
    last = now;
  };
  const done = (failure: ErrorCode | null): void => measures.done(work, wire, failure, (performance.now() - begun) / 1000);
  try {
    const result = await run(told);
    done(null);
    return result;
  } catch (error) {
    done(PaddockError.from(error).code);
    throw error;
  }
}
