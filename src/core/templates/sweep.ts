import type { Clock } from '../clock.ts';
import type { Host } from '../host.ts';
import type { Store } from '../store.ts';
import { PaddockError } from '../errors.ts';
import type { BuildHost } from './build-host.ts';
import type { TemplateShelf } from './shelf.ts';

export interface SweepDeps {
  readonly store: Pick<Store, 'templates' | 'layerCache'>;
  readonly host: Pick<Host, 'removeCheckpoint'>;
  readonly buildHost: BuildHost;
  readonly shelf: TemplateShelf;
  readonly clock: Clock;
  /** Gets what fails with nobody waiting. */
  readonly report: (error: PaddockError) => void;
}

const sweepAfterMs = 2000;
const hourMs = 3_600_000;
/** Layers of steps that no build has used for this long are given up, unless a template has them. */
const cachedForMs = 7 * 24 * hourMs;

/**
 * Takes away what templates were built from and no longer need: artefacts of before that no sandbox needs, their checkpoints, layers.
 * Rows go before files: a file without a row is found by the next sweep.
 */
export class TemplateSweep {
  readonly #deps: SweepDeps;
  #timer: NodeJS.Timeout | null = null;
  #hourly: NodeJS.Timeout | null = null;
  #running: Promise<unknown> = Promise.resolve();
  #stopped = false;

  constructor(deps: SweepDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#hourly = setInterval(() => this.soon(0), hourMs);
    this.#hourly.unref();
    this.soon(0);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#hourly !== null) clearInterval(this.#hourly);
    await this.#running;
  }

  /** With nobody waiting; many calls make one sweep. */
  soon(afterMs = sweepAfterMs): void {
    if (this.#stopped || this.#timer !== null) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.run({ forgetLayers: false }).catch((error: unknown) => this.#deps.report(PaddockError.from(error)));
    }, afterMs);
    this.#timer.unref();
  }

  /** One at a time. With `forgetLayers` also what only makes the next build faster; resolves to the bytes that layers freed. */
  run(options: { readonly forgetLayers: boolean }): Promise<number> {
    const mine = this.#running.then(() => this.#sweep(options));
    this.#running = mine.catch(() => undefined);
    return mine;
  }

  async #sweep({ forgetLayers }: { readonly forgetLayers: boolean }): Promise<number> {
    await this.#dropArtefacts();
    await this.#uninstall();
    return this.#dropLayers(forgetLayers);
  }

  async #dropArtefacts(): Promise<void> {
    const { store, host, shelf } = this.#deps;
    const needed = await store.templates.neededDigests();
    for (const artefact of await store.templates.artefacts()) {
      using taken = shelf.holds.take(`artefact:${artefact.id}`);
      if (taken === null || (await store.templates.currentArtefacts()).has(artefact.id)) continue;
      // Sandboxes that run have what they need of the checkpoint; new ones are made from another.
      if (artefact.start !== null) await host.removeCheckpoint(artefact.start.checkpoint.id);
      // Its layers and its root are what they still need.
      if (!needed.has(artefact.digest)) await store.templates.removeArtefact(artefact.id);
    }
  }

  async #uninstall(): Promise<void> {
    const { store, buildHost, shelf } = this.#deps;
    for (const digest of await buildHost.installedTemplates()) {
      using taken = shelf.holds.take(`digest:${digest}`);
      if (taken === null || (await store.templates.artefacts()).some((artefact) => artefact.digest === digest) || (await store.templates.neededDigests()).has(digest)) continue;
      // One that is needed after all, as when a checkpoint of before is on its way out, is for the next sweep.
      await buildHost.uninstallTemplate(digest).catch((error: unknown) => this.#deps.report(PaddockError.from(error)));
    }
  }

  /** Not while anything is built: its layers are nobody's yet. */
  async #dropLayers(forget: boolean): Promise<number> {
    const { store, buildHost, shelf, clock } = this.#deps;
    using taken = shelf.holds.take('layers');
    if (taken === null) return 0;
    await store.layerCache.purge(forget ? Number.MAX_SAFE_INTEGER : clock.now() - cachedForMs);
    const keep = new Set(await store.layerCache.layers());
    for (const { root } of await store.templates.artefacts()) for (const layer of root.layers) keep.add(layer);
    return buildHost.removeLayers(keep);
  }
}
