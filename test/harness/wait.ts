import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Calls `check` until it neither throws nor gives `false`, and resolves to what it gave. When the time is over, the last
 * failure is thrown.
 */
export async function eventually<T>(check: () => T | Promise<T>, { withinMs = 10_000, everyMs = 50 } = {}): Promise<Exclude<T, false>> {
  const deadline = Date.now() + withinMs;
  for (;;) {
    try {
      const value = await check();
      if (value !== false) return value as Exclude<T, false>;
      if (Date.now() > deadline) throw new Error(`still false after ${withinMs} ms: ${check.toString()}`);
    } catch (reason) {
      if (Date.now() > deadline) throw reason;
    }
    await sleep(everyMs);
  }
}

/** The promise's outcome, or a failure that says what did not come in time. For what must not hang. */
export async function within<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`${what}: nothing after ${ms} ms`)), ms);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

export { sleep };
