import type { Clock } from './clock.ts';

/** No wait is longer than this, so that a jump of the clock is noticed within it, and no timer overflows (24.8 days). */
const longestWait = 1000;

/**
 * Many deadlines on one timer. Each fires once, within a second of its time by the clock given, also when that clock
 * jumps; at once when its time has passed already.
 */
export class Deadlines {
  readonly #clock: Clock;
  readonly #armed = new Map<string, { readonly at: number; readonly due: () => void }>();
  /** Not later than the earliest one; it may be earlier, since disarming does not search for the next. */
  #earliest = Infinity;
  #timer: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Replaces an earlier deadline of the same key. `due` is never called from within this call, and must not throw. */
  arm(key: string, at: number, due: () => void): void {
    if (this.#stopped) return;
    this.#armed.set(key, { at, due });
    if (at < this.#earliest) {
      this.#earliest = at;
      this.#wait();
    }
  }

  disarm(key: string): void {
    this.#armed.delete(key);
    if (this.#armed.size === 0) {
      this.#earliest = Infinity;
      this.#wait();
    }
  }

  get size(): number {
    return this.#armed.size;
  }

  /** Nothing fires any more, and nothing can be armed. */
  stop(): void {
    this.#stopped = true;
    this.#armed.clear();
    this.#earliest = Infinity;
    this.#wait();
  }

  #wait(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#earliest === Infinity) return;
    const left = Math.max(0, this.#earliest - this.#clock.now());
    this.#timer = setTimeout(() => this.#check(), Math.min(left, longestWait));
    this.#timer.unref();
  }

  #check(): void {
    const now = this.#clock.now();
    if (now >= this.#earliest) {
      let earliest = Infinity;
      const due: (() => void)[] = [];
      for (const [key, deadline] of this.#armed) {
        if (deadline.at <= now) {
          this.#armed.delete(key);
          due.push(deadline.due);
        } else if (deadline.at < earliest) earliest = deadline.at;
      }
      // Before the calls, since they may arm others.
      this.#earliest = earliest;
      for (const call of due) call();
    }
    this.#wait();
  }
}
