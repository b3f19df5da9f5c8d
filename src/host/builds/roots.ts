import { createHash, randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { mkdir, readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { PaddockError } from '../../core/errors.ts';
import type { LayerId, RootLayers, TemplateRoot } from '../../core/templates/build-host.ts';
import { ensureMountPoints } from '../gvisor/mount-points.ts';
import { mountsAt, unmountAt } from '../mounts.ts';
import type { InstalledTemplate, InstalledTemplates } from '../templates.ts';
import { flush, removeTree, unfinished, writeDurably } from './durable.ts';
import type { Layers } from './layers.ts';
import { mostLayers, mountOverlay, overlayRoot } from './overlay.ts';

const digestShape = /^[0-9a-f]{64}$/;
const format = 1;

interface Manifest extends TemplateRoot {
  readonly version: typeof format;
  readonly digest: string;
  readonly sizeBytes: number;
  /** Milliseconds since the epoch. */
  readonly builtAt: number;
}

/**
 * Roots made of layers: `<dir>/<digest>/manifest.json` says what an installed template consists of, and `root` beside it is where its layers
 * are mounted over each other, read-only, from the first guest that is made of it on.
 */
export class Roots {
  readonly #dir: string;
  readonly #layers: Layers;
  /** Those that set-up has made. */
  readonly #builtIn: InstalledTemplates;
  readonly #known = new Map<string, InstalledTemplate>();
  readonly #mounting = new Map<string, Promise<void>>();

  constructor(dir: string, layers: Layers, builtIn: InstalledTemplates) {
    this.#dir = dir;
    this.#layers = layers;
    this.#builtIn = builtIn;
    mkdirSync(dir, { recursive: true, mode: 0o700 });
  }

  /** Removes what was not finished when the server ended. What is mounted of the others stays: guests may live on it. */
  async recover(): Promise<void> {
    for (const name of await readdir(this.#dir)) {
      if (!existsSync(join(this.#dir, name, 'manifest.json'))) await this.#erase(join(this.#dir, name));
    }
  }

  /** Where the trees of a root are, lowest first. Throws `not_found` when one is not on this machine. */
  async trees({ base, layers }: RootLayers): Promise<readonly string[]> {
    if (layers.length > mostLayers) throw new PaddockError('invalid_argument', `a root takes ${mostLayers} layers at most, and this one has ${layers.length}`, { field: 'layers' });
    if (base === null && layers.length === 0) throw new PaddockError('invalid_argument', 'a root needs a template or an image to start from', { field: 'base' });
    for (const id of layers) await this.#layers.get(id);
    return [...(base === null ? [] : [this.#base(base).rootfs]), ...lastOfEach(layers).map((id) => this.#layers.tree(id))];
  }

  /** The environment that comes with the template below. */
  env({ base }: RootLayers): Readonly<Record<string, string>> {
    return base === null ? {} : this.#base(base).env;
  }

  #base(digest: string): InstalledTemplate {
    const base = this.#builtIn.byDigest(digest);
    if (base === undefined) throw new PaddockError('not_found', `the template ${digest.slice(0, 64)} that this one starts from is not on this machine`, { reason: 'template_gone' });
    return base;
  }

  async install(template: TemplateRoot): Promise<{ readonly digest: string; readonly sizeBytes: number }> {
    const { name, limits, env } = template;
    const root: RootLayers = { base: template.root.base, layers: lastOfEach(template.root.layers) };
    const digest = createHash('sha256').update(canonical({ format, root, limits, env })).digest('hex');
    return this.#layers.inTurn(async () => {
      const installed = this.find(digest);
      if (installed !== undefined) return { digest, sizeBytes: installed.sizeBytes ?? 0 };
      await this.trees(root);
      const layers = await Promise.all(root.layers.map((id) => this.#layers.get(id)));
      const sizeBytes = layers.reduce((sum, { bytes }) => sum + bytes, root.base === null ? 0 : (this.#base(root.base).sizeBytes ?? 0));
      const manifest: Manifest = { version: format, digest, name, root, limits, env, sizeBytes, builtAt: Date.now() };
      await mkdir(join(this.#dir, digest), { recursive: true, mode: 0o700 });
      await writeDurably(join(this.#dir, digest, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
      await flush(this.#dir);
      return { digest, sizeBytes };
    });
  }

  /** Undefined too when what it starts from is no longer there. */
  find(digest: string): InstalledTemplate | undefined {
    if (!digestShape.test(digest)) return undefined;
    const known = this.#known.get(digest);
    if (known !== undefined) return known;
    const manifest = this.#read(digest);
    const rootfs = manifest === null ? undefined : this.#placeOf(digest, manifest.root);
    if (manifest === null || rootfs === undefined) return undefined;
    const { name, limits, env, sizeBytes, builtAt } = manifest;
    const template: InstalledTemplate = Object.freeze({ id: `tpl-${digest}`, name, digest, description: '', limits: Object.freeze(limits), env: Object.freeze(env), builtAt, sizeBytes, rootfs });
    this.#known.set(digest, template);
    return template;
  }

  /** Where a guest finds the root: mounted, or as it lies when there is but one tree. */
  #placeOf(digest: string, { base, layers }: RootLayers): string | undefined {
    const below = base === null ? undefined : this.#builtIn.byDigest(base)?.rootfs;
    if (base !== null && below === undefined) return undefined;
    if (layers.length === 0) return below;
    return base === null && layers.length === 1 ? this.#layers.tree(layers[0]!) : overlayRoot(join(this.#dir, digest));
  }

  /** Sees to it that the layers of an installed template are mounted. Throws `not_found` when one is missing. */
  async mount({ digest, rootfs }: InstalledTemplate): Promise<void> {
    const home = join(this.#dir, digest);
    if (rootfs !== overlayRoot(home)) return;
    const mounting = this.#mounting.get(digest) ?? this.#mount(digest, home).finally(() => this.#mounting.delete(digest));
    this.#mounting.set(digest, mounting);
    await mounting;
  }

  async #mount(digest: string, home: string): Promise<void> {
    if (mountsAt(overlayRoot(home)).length > 0) return;
    const manifest = this.#read(digest);
    if (manifest === null) throw new PaddockError('not_found', `the template ${digest} is not on this machine`);
    const lower = await this.trees(manifest.root);
    await ensureMountPoints(lower[0]!); // what is mounted here is read-only
    await mountOverlay({ home, lower });
  }

  /** The caller knows that nothing is made of it any more. Succeeds when there is nothing. */
  async uninstall(digest: string): Promise<void> {
    if (!digestShape.test(digest)) return;
    await this.#layers.inTurn(async () => {
      this.#known.delete(digest);
      await this.#mounting.get(digest)?.catch(() => undefined);
      const home = join(this.#dir, digest);
      if (!existsSync(home)) return;
      await unmountAt(home);
      const doomed = join(this.#dir, `${randomUUID()}${unfinished}`);
      await rename(join(home, 'manifest.json'), join(home, `manifest.json${unfinished}`)).catch((reason: unknown) => {
        if ((reason as NodeJS.ErrnoException).code !== 'ENOENT') throw reason;
      });
      await rename(home, doomed);
      await removeTree(doomed);
    });
  }

  async list(): Promise<readonly string[]> {
    return (await readdir(this.#dir)).filter((name) => digestShape.test(name) && this.#read(name) !== null);
  }

  /** Layers of all that are installed. */
  async layersInUse(): Promise<readonly LayerId[]> {
    return (await this.list()).flatMap((digest) => this.#read(digest)?.root.layers ?? []);
  }

  /** Templates of set-up's that installed ones start from. */
  async basesInUse(): Promise<readonly string[]> {
    return (await this.list()).flatMap((digest) => this.#read(digest)?.root.base ?? []);
  }

  /** For when no guest is left on the machine. */
  async unmountAll(): Promise<void> {
    await unmountAt(this.#dir);
  }

  async #erase(home: string): Promise<void> {
    await unmountAt(home);
    await removeTree(home);
  }

  #read(digest: string): Manifest | null {
    let text: string;
    try {
      text = readFileSync(join(this.#dir, digest, 'manifest.json'), 'utf8');
    } catch (reason) {
      if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw reason;
    }
    const manifest = JSON.parse(text) as Manifest;
    if (manifest.version !== format) throw new Error(`the template ${digest} was installed by another version of Paddock`);
    return manifest;
  }
}

/**
 * A layer may come twice, when two steps do the same, and no overlay takes it twice. What it says above holds over what it says below, about every
 * path that it says anything of, so the lower one makes no difference.
 */
function lastOfEach(layers: readonly LayerId[]): readonly LayerId[] {
  return layers.filter((id, at) => layers.lastIndexOf(id) === at);
}

/** JSON with the keys of each object in order: equal values are equal texts. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner) ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1))) : inner,
  );
}
