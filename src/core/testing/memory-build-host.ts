import { createHash, randomBytes } from 'node:crypto';
import { PaddockError } from '../errors.ts';
import type { GuestRef } from '../host.ts';
import type { SandboxId } from '../ids.ts';
import { BuildFailure, type BuildHost, type ImageRequest, type ImportedImage, type LayerId, type LayerRef, type StepSpec, type TemplateRoot } from '../templates/build-host.ts';
import type { Template } from '../template.ts';
import { MemoryGuest } from './memory-guest.ts';
import type { MemoryHost } from './memory-host.ts';

/** What a machine made of memory does for builds. It outlives the core that uses it, like the machine. */
export class MemoryBuildHost implements BuildHost {
  readonly layers = new Set<LayerId>();
  readonly installed = new Map<string, TemplateRoot>();
  readonly images = new Map<string, ImportedImage>();
  readonly requests: ImageRequest[] = [];
  /** The steps there were, with their guests. */
  readonly steps: { readonly spec: StepSpec; readonly guest: MemoryGuest }[] = [];
  /** Called before each; may wait or throw. */
  onStep: (spec: StepSpec, signal: AbortSignal) => Promise<void> = async () => undefined;
  onSeal: (id: SandboxId) => Promise<void> = async () => undefined;
  onInstall: (template: TemplateRoot) => Promise<void> = async () => undefined;
  onImport: (request: ImageRequest, signal: AbortSignal) => Promise<void> = async () => undefined;
  readonly #host: MemoryHost;

  constructor(host: MemoryHost) {
    this.#host = host;
  }

  /** An image that can be had. */
  addImage(reference: string, config: Partial<ImportedImage['config']> = {}): ImportedImage {
    const id = newLayer();
    const image = { layer: { id, bytes: 1000 }, config: { env: {}, workdir: null, user: null, entrypoint: [], cmd: [], ...config }, digest: `sha256:${id}` };
    this.images.set(reference, image);
    return image;
  }

  /** The commands of all steps, in order. */
  get commands(): string[] {
    return this.steps.flatMap(({ guest }) => [...guest.processes_.values()].map(({ spec }) => spec.cmd));
  }

  byDigest(digest: string): Template | undefined {
    const found = this.installed.get(digest);
    return found && { id: `tpl-${found.name}`, name: found.name, digest, description: '', limits: found.limits, env: found.env };
  }

  async importImage(request: ImageRequest, signal: AbortSignal): Promise<ImportedImage> {
    this.requests.push(request);
    await this.onImport(request, signal);
    signal.throwIfAborted();
    const image = this.images.get(request.reference);
    if (image === undefined) throw new BuildFailure('image_pull_failed', `${request.reference}: there is no such image`);
    this.layers.add(image.layer.id);
    return image;
  }

  async knownLayers(ids: readonly LayerId[]): Promise<ReadonlySet<LayerId>> {
    return new Set(ids.filter((id) => this.layers.has(id)));
  }

  async provisionStep(spec: StepSpec, signal: AbortSignal): Promise<GuestRef> {
    await this.onStep(spec, signal);
    signal.throwIfAborted();
    for (const layer of spec.root.layers) if (!this.layers.has(layer)) throw new Error(`there is no layer ${layer}`);
    const { sandboxId } = spec.identity;
    const guest = new MemoryGuest();
    this.steps.push({ spec, guest });
    this.#host.guests.set(sandboxId, guest);
    return { runtime: 'gvisor', build: 'b'.repeat(64), container: `c-${sandboxId}`, slot: 1, address: '10.0.0.9', agentPort: 49_983, agentProtocol: 2, pid: 1, pidStart: '1', bootId: 'boot' };
  }

  async sealStep(id: SandboxId, signal: AbortSignal): Promise<LayerRef> {
    await this.onSeal(id);
    signal.throwIfAborted();
    const guest = this.#host.guests.get(id);
    if (guest === undefined) throw new PaddockError('gone', 'the guest of the step is gone');
    this.#host.guests.delete(id);
    guest.die();
    const layer = newLayer();
    this.layers.add(layer);
    return { id: layer, bytes: 100 };
  }

  async installTemplate(template: TemplateRoot): Promise<{ digest: string; sizeBytes: number }> {
    await this.onInstall(template);
    for (const layer of template.root.layers) if (!this.layers.has(layer)) throw new Error(`there is no layer ${layer}`);
    const digest = createHash('sha256').update(JSON.stringify(template)).digest('hex');
    this.installed.set(digest, template);
    return { digest, sizeBytes: 4096 };
  }

  async uninstallTemplate(digest: string): Promise<void> {
    this.installed.delete(digest);
  }

  async installedTemplates(): Promise<readonly string[]> {
    return [...this.installed.keys()];
  }

  async removeLayers(keep: ReadonlySet<LayerId>): Promise<number> {
    const named = new Set([...this.installed.values()].flatMap(({ root }) => root.layers));
    let freed = 0;
    for (const layer of this.layers) {
      if (keep.has(layer) || named.has(layer)) continue;
      this.layers.delete(layer);
      freed += 100;
    }
    return freed;
  }

  /** The machine as one life of the server sees it, like the host's own. */
  session(): BuildHost & { cut(): void } {
    let alive = true;
    const reach = async <T>(call: () => Promise<T>): Promise<T> => {
      if (!alive) throw new PaddockError('internal', 'this server has ended');
      return call();
    };
    return {
      importImage: (request, signal) => reach(() => this.importImage(request, signal)),
      knownLayers: (ids) => reach(() => this.knownLayers(ids)),
      provisionStep: (spec, signal) => reach(() => this.provisionStep(spec, signal)),
      sealStep: (id, signal) => reach(() => this.sealStep(id, signal)),
      installTemplate: (template) => reach(() => this.installTemplate(template)),
      uninstallTemplate: (digest) => reach(() => this.uninstallTemplate(digest)),
      installedTemplates: () => reach(() => this.installedTemplates()),
      removeLayers: (keep) => reach(() => this.removeLayers(keep)),
      cut: () => void (alive = false),
    };
  }
}

function newLayer(): LayerId {
  return randomBytes(32).toString('hex');
}
