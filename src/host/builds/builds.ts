import { join } from 'node:path';
import { PaddockError } from '../../core/errors.ts';
import type { CheckpointRef, GuestRef } from '../../core/host.ts';
import type { SandboxId } from '../../core/ids.ts';
import type { BuildHost, ImageRequest, ImportedImage, LayerId, LayerRef, StepSpec, TemplateRoot } from '../../core/templates/build-host.ts';
import type { ImageSource } from '../images/source.ts';
import type { HostLog } from '../log.ts';
import type { Needed } from '../old-artefacts.ts';
import { assertDiskRoom } from '../room.ts';
import type { InstalledTemplates } from '../templates.ts';
import { Imports } from './imports.ts';
import { Layers } from './layers.ts';
import { Roots } from './roots.ts';
import { type StepParts, Steps } from './steps.ts';

/** What is kept on the disk for templates that were built here, and the templates of this host, these included. */
export class BuiltTemplates {
  readonly layers: Layers;
  readonly roots: Roots;
  readonly templates: InstalledTemplates;

  constructor(dataDir: string, builtIn: InstalledTemplates, log: HostLog) {
    this.layers = new Layers(join(dataDir, 'layers'), log);
    this.roots = new Roots(join(dataDir, 'roots'), this.layers, builtIn);
    this.templates = Object.freeze({
      ...builtIn,
      byDigest: (digest: string) => builtIn.byDigest(digest) ?? this.roots.find(digest),
      prepare: (template: Parameters<InstalledTemplates['prepare']>[0]) => this.roots.mount(template),
    });
  }
}

export interface BuildsParts extends Omit<StepParts, 'layers' | 'roots'> {
  readonly dataDir: string;
  readonly built: BuiltTemplates;
  readonly images: ImageSource | null;
  readonly checkpoints: { list(): Promise<readonly CheckpointRef[]> };
}

/** Builds of templates on this machine. */
export class Builds implements BuildHost {
  readonly #parts: BuildsParts;
  readonly #layers: Layers;
  readonly #roots: Roots;
  readonly #imports: Imports;
  readonly #steps: Steps;
  readonly #closing = new AbortController();
  readonly #underWay = new Set<Promise<unknown>>();

  constructor(parts: BuildsParts) {
    const { built, images, dataDir } = parts;
    this.#parts = parts;
    this.#layers = built.layers;
    this.#roots = built.roots;
    this.#imports = new Imports(images, built.layers, dataDir);
    this.#steps = new Steps({ ...parts, layers: built.layers, roots: built.roots });
  }

  /** Removes what an earlier server left half done, when its guests are gone. */
  async recover(): Promise<void> {
    await this.#layers.recover();
    await this.#roots.recover();
  }

  importImage(request: ImageRequest, signal: AbortSignal): Promise<ImportedImage> {
    return this.#work(signal, (limit) => this.#imports.import(request, limit));
  }

  async knownLayers(ids: readonly LayerId[]): Promise<ReadonlySet<LayerId>> {
    const known = await Promise.all(ids.map(async (id) => ((await this.#layers.find(id)) === null ? [] : [id])));
    return new Set(known.flat());
  }

  provisionStep(spec: StepSpec, signal: AbortSignal): Promise<GuestRef> {
    return this.#work(signal, async (limit) => {
      await assertDiskRoom(this.#parts.dataDir, 0, 'What the step writes');
      return this.#steps.provision(spec, limit);
    });
  }

  sealStep(id: SandboxId, signal: AbortSignal): Promise<LayerRef> {
    return this.#work(signal, (limit) => this.#steps.seal(id, limit));
  }

  installTemplate(template: TemplateRoot): Promise<{ readonly digest: string; readonly sizeBytes: number }> {
    return this.#roots.install(template);
  }

  async uninstallTemplate(digest: string): Promise<void> {
    const { tenants, runtime, checkpoints } = this.#parts;
    const lived = tenants.all().some(({ slot }) => runtime.origin(slot)?.template === digest);
    if (lived || (await checkpoints.list()).some(({ template }) => template === digest)) {
      throw new PaddockError('conflict', 'sandboxes or snapshots still need the template; delete them first');
    }
    await this.#roots.uninstall(digest);
  }

  installedTemplates(): Promise<readonly string[]> {
    return this.#roots.list();
  }

  /** What of set-up's the guests, checkpoints and installed templates of this host are made of. */
  async needed(): Promise<Needed> {
    const { tenants, runtime, checkpoints } = this.#parts;
    const origins = tenants.all().map(({ slot }) => runtime.origin(slot)).filter((origin) => origin !== null);
    const saved = await checkpoints.list();
    return {
      templates: new Set([...origins.map(({ template }) => template), ...saved.map(({ template }) => template), ...(await this.#roots.basesInUse())]),
      agents: new Set([...origins, ...saved].map(({ agent }) => agent)),
      runscs: new Set([...tenants.all().map(({ handle }) => handle.build), ...saved.map(({ build }) => build)]),
    };
  }

  removeLayers(keep: ReadonlySet<LayerId>): Promise<number> {
    return this.#layers.removeAllBut(async () => new Set([...keep, ...(await this.#roots.layersInUse()), ...this.#steps.layersInUse()]));
  }

  /** Throws when the guest is one of a step, which cannot be saved. */
  assertSavable(id: SandboxId): void {
    if (this.#steps.has(id)) throw new PaddockError('unprocessable', 'a sandbox that carries out a step of a build cannot be paused or saved: what it writes becomes a layer when the step ends');
  }

  /** Ends the work under way and the guests of steps: nobody would find them again. */
  async close(): Promise<readonly SandboxId[]> {
    this.#closing.abort(new PaddockError('guest_unreachable', 'the server is stopping; build the template again'));
    await Promise.allSettled(this.#underWay);
    return this.#steps.all();
  }

  /** For when no guest is left on the machine. */
  async teardown(): Promise<void> {
    await this.#roots.unmountAll();
  }

  async #work<T>(signal: AbortSignal, work: (limit: AbortSignal) => Promise<T>): Promise<T> {
    const under = work(AbortSignal.any([signal, this.#closing.signal]));
    this.#underWay.add(under);
    try {
      return await under;
    } finally {
      this.#underWay.delete(under);
    }
  }
}
