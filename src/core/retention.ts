import type { Clock } from './clock.ts';
import { keptForMs } from './idempotency.ts';
import type { Deadlines } from './deadlines.ts';
import type { CoreSettings } from './settings.ts';
import type { Store } from './store.ts';

const dayMs = 86_400_000;
const hourMs = 3_600_000;

/** Removes what has been kept long enough: at start and every hour. */
export class Retention {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #settings: CoreSettings;
  readonly #deadlines: Deadlines;
  readonly #sweepSnapshots: () => Promise<void>;

  constructor(deps: { readonly store: Store; readonly clock: Clock; readonly settings: CoreSettings; readonly deadlines: Deadlines; readonly sweepSnapshots: () => Promise<void> }) {
    this.#store = deps.store;
    this.#clock = deps.clock;
    this.#settings = deps.settings;
    this.#deadlines = deps.deadlines;
    this.#sweepSnapshots = deps.sweepSnapshots;
  }

  async start(): Promise<void> {
    await this.#purge();
    this.#again();
  }

  async #purge(): Promise<void> {
    const now = this.#clock.now();
    await this.#store.sandboxes.purge(now - this.#settings.tombstoneDays * dayMs);
    await this.#store.events.purge(now - this.#settings.eventDays * dayMs, this.#settings.maxEvents);
    await this.#store.networkEvents.purge(now - this.#settings.networkLogDays * dayMs, this.#settings.maxConnections);
    await this.#store.idempotency.purge(now - keptForMs);
    await this.#sweepSnapshots();
    const { secretLogDays, maxSecretUses, tombstoneDays } = this.#settings;
    await this.#store.secretUses.purge(now - secretLogDays * dayMs, maxSecretUses);
    await this.#store.secretBindings.purge();
    await this.#store.secrets.purge(now - tombstoneDays * dayMs);
    await this.#store.authorities.purge(now - hourMs); // younger ones may belong to a create under way
  }

  #again(): void {
    this.#deadlines.arm('retention', this.#clock.now() + hourMs, () => {
      // What fails now is done an hour later.
      this.#purge().catch(() => undefined).finally(() => this.#again());
    });
  }
}
