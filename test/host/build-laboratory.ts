import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { ImageConfig, ImageRequest, ImportedImage, LayerId, LayerRef, RootLayers } from '../../src/core/templates/build-host.ts';
import type { Limits, Template } from '../../src/core/template.ts';
import type { HostOptions } from '../../src/host/host.ts';
import type { FoundImage, ImageSource } from '../../src/host/images/source.ts';
import { Laboratory, openNetwork, type Subject, team } from './laboratory.ts';

const deadlineMs = 120_000;

export const plainConfig: ImageConfig = { env: {}, workdir: null, user: null, entrypoint: [], cmd: [] };

/** Images that a test makes up: trees written by a function, under a name. */
export class LocalImages implements ImageSource {
  readonly #images = new Map<string, { digest: string; fill: (tree: string, signal: AbortSignal) => Promise<void> }>();
  unpacked = 0;

  add(reference: string, digit: string, fill: (tree: string, signal: AbortSignal) => Promise<void>): string {
    this.#images.set(reference, { digest: `sha256:${digit.padStart(64, '0')}`, fill });
    return reference;
  }

  async find({ reference }: ImageRequest): Promise<FoundImage> {
    const image = this.#images.get(reference);
    assert.ok(image, `no image ${reference}`);
    return {
      digest: image.digest,
      config: { ...plainConfig, env: { FROM: reference } },
      unpack: async (tree, signal) => {
        this.unpacked++;
        await image.fill(tree, signal);
      },
    };
  }
}

/** Files by path; what ends in a slash is a directory. */
export function filesOf(files: Readonly<Record<string, string>>): (tree: string) => Promise<void> {
  return async (tree) => {
    for (const [path, text] of Object.entries(files)) {
      await mkdir(join(tree, path.endsWith('/') ? path : dirname(path)), { recursive: true });
      if (!path.endsWith('/')) await writeFile(join(tree, path), text);
    }
  };
}

/** A host for builds. */
export class BuildLaboratory extends Laboratory {
  readonly images: LocalImages;

  constructor(options: Partial<HostOptions> = {}, dataDir?: string) {
    const images = new LocalImages();
    super({ images, ...options }, ...(dataDir === undefined ? [] : ([dataDir] as const)));
    this.images = images;
  }

  get base(): Template {
    return this.host.templates.find('base')!;
  }

  get limits(): Limits {
    return this.base.limits;
  }

  get onBase(): RootLayers {
    return { base: this.base.digest, layers: [] };
  }

  get layersDir(): string {
    return join(this.dataDir, 'layers');
  }

  tree(layer: LayerRef | LayerId): string {
    return join(this.layersDir, typeof layer === 'string' ? layer : layer.id, 'tree');
  }

  /** What is in the directory of layers, finished or not. */
  get layerNames(): string[] {
    return readdirSync(this.layersDir).filter((name) => name !== 'images').sort();
  }

  over(root: RootLayers, ...layers: LayerRef[]): RootLayers {
    return { base: root.base, layers: [...root.layers, ...layers.map(({ id }) => id)] };
  }

  async step(root: RootLayers, limits: Partial<Limits> = {}): Promise<Subject> {
    const { id, token, identity } = this.someone();
    const spec = { root, limits: { ...this.limits, ...limits }, identity, teamId: team, network: openNetwork };
    return { id, token, ref: await this.host.provisionStep(spec, AbortSignal.timeout(deadlineMs)) };
  }

  seal({ id }: Subject): Promise<LayerRef> {
    return this.host.sealStep(id, AbortSignal.timeout(deadlineMs));
  }

  /** One step that runs a script as root and says nothing. */
  async layer(root: RootLayers, script: string): Promise<LayerRef> {
    const step = await this.step(root);
    assert.equal(await this.run(step, script), '');
    return this.seal(step);
  }

  import(reference: string, more: Partial<ImageRequest> = {}, signal = AbortSignal.timeout(deadlineMs)): Promise<ImportedImage> {
    return this.host.importImage({ reference, allowPaths: false, maxBytes: 2 ** 33, onProgress: () => {}, ...more }, signal);
  }

  /** An installed template of this root. */
  async install(root: RootLayers, env: Readonly<Record<string, string>> = {}): Promise<Template> {
    const { digest } = await this.host.installTemplate({ name: 'made', root, limits: this.limits, env });
    const template = this.host.templates.byDigest(digest);
    assert.ok(template);
    return template;
  }

  /** A sandbox made of this root. */
  async sandbox(root: RootLayers): Promise<Subject> {
    return this.create(await this.install(root));
  }
}

/** Everything below a directory, no link followed, with what the kernel says of it. */
export function listing(tree: string): string[] {
  return existsSync(tree) ? execFileSync('find', ['.', '-mindepth', '1', '-printf', '%P %y %m %U:%G %n %l\\n'], { cwd: tree, encoding: 'utf8' }).split('\n').map((line) => line.trimEnd()).filter((line) => line !== '').sort() : [];
}

export function isWhiteout(path: string): boolean {
  const stat = lstatSync(path);
  return stat.isCharacterDevice() && stat.rdev === 0;
}
