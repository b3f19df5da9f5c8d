import type { Clock } from './clock.ts';
import type { Sandbox } from './sandbox.ts';
import type { EventCategory, EventStore, PaddockEvent } from './store.ts';
import type { TeamId } from './ids.ts';

const flushAfterMs = 200;
const batchSize = 200;
const largestBuffer = 10_000;

/**
 * Records what happens without making anybody wait: events are buffered and written in batches. The buffer is bounded;
 * when the store cannot follow, the oldest are dropped and their number is recorded.
 */
export class EventLog {
  readonly #store: Pick<EventStore, 'append'>;
  readonly #clock: Clock;
  readonly #buffer: PaddockEvent[] = [];
  #dropped = 0;
  #timer: NodeJS.Timeout | null = null;
  #writing: Promise<boolean> | null = null;
  #stopped = false;

  constructor(deps: { readonly store: Pick<EventStore, 'append'>; readonly clock: Clock }) {
    this.#store = deps.store;
    this.#clock = deps.clock;
  }

  /** Something that happened to a sandbox. Categories beyond lifecycle follow the sandbox's audit setting. */
  ofSandbox(sandbox: Pick<Sandbox, 'id' | 'teamId' | 'policy'>, category: EventCategory, name: string, detail: PaddockEvent['detail'] = {}): void {
    if (!sandbox.policy.audit && category !== 'lifecycle' && category !== 'admin') return;
    this.#add({ at: this.#clock.now(), teamId: sandbox.teamId, sandboxId: sandbox.id, category, name, detail });
  }

  ofTeam(teamId: TeamId, name: string, detail: PaddockEvent['detail'] = {}, category: 'admin' | 'template' | 'security' = 'admin'): void {
    this.#add({ at: this.#clock.now(), teamId, sandboxId: null, category, name, detail });
  }

  /** Resolves when all that was recorded before is stored; at the first failure, when that has been tried. */
  async flush(): Promise<void> {
    while (this.#buffer.length > 0 || this.#writing !== null) {
      if (!(await this.#drain())) return;
    }
  }

  /** Writes what is left; later events are dropped. */
  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    await this.flush();
  }

  #add(event: PaddockEvent): void {
    if (this.#stopped) return;
    this.#buffer.push(Object.freeze(event));
    this.#bound();
    this.#later();
  }

  #later(): void {
    if (this.#timer !== null || this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      void this.#drain();
    }, flushAfterMs);
    this.#timer.unref();
  }

  /** One write at a time; callers share it. Never rejects. */
  #drain(): Promise<boolean> {
    this.#writing ??= this.#write().finally(() => {
      this.#writing = null;
      if (this.#buffer.length > 0) this.#later();
    });
    return this.#writing;
  }

  /** Writes one batch. One that cannot be written goes back to the front of the buffer, whose bound says for how long. */
  async #write(): Promise<boolean> {
    const batch = this.#buffer.splice(0, batchSize);
    const last = batch.at(-1);
    if (last === undefined) return true;
    const dropped = this.#dropped;
    const lost: PaddockEvent[] =
      dropped === 0 ? [] : [{ at: last.at, teamId: last.teamId, sandboxId: null, category: 'admin', name: 'events_dropped', detail: { count: dropped } }];
    try {
      await this.#store.append([...batch, ...lost]);
      this.#dropped -= dropped;
      return true;
    } catch {
      // The store's failure shows in every other call; an event must not fail what it reports.
      this.#buffer.unshift(...batch);
      this.#bound();
      return false;
    }
  }

  #bound(): void {
    const surplus = this.#buffer.length - largestBuffer;
    if (surplus <= 0) return;
    this.#buffer.splice(0, surplus);
    this.#dropped += surplus;
  }
}
