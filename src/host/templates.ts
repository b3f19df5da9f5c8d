import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { PaddockError } from '../core/errors.ts';
import type { Limits, Template, TemplateCatalog } from '../core/template.ts';
import { HostSetupError } from './setup-error.ts';

/** A template with the place of its root file system on this host. */
export interface InstalledTemplate extends Template {
  readonly rootfs: string;
}

export interface InstalledTemplates extends TemplateCatalog {
  list(): readonly InstalledTemplate[];
  find(name: string): InstalledTemplate | undefined;
  /** Also one that is no longer served: guests and checkpoints that were made of it need it. */
  byDigest(digest: string): InstalledTemplate | undefined;
  /** Sees to it that its root file system is where it says, before a guest is made of it. */
  prepare(template: InstalledTemplate): Promise<void>;
}

/** Milliseconds between two looks at the directory while something in it is still being built. */
const lookAgainMs = 500;
/** How long a build that failed is not tried again. */
const restAfterFailureMs = 60_000;

/** What the directory held when it was last read. */
interface Shelf {
  readonly ready: ReadonlyMap<string, InstalledTemplate>;
  readonly announced: ReadonlyMap<string, Pick<Template, 'description' | 'limits'>>;
  readonly pending: readonly string[];
  readonly offered: readonly string[];
}

/**
 * The templates that set-up has built: `<artefacts>/templates/<name>/current.json` names the digest that is served,
 * `<digest>/manifest.json` says what it is. A `building.json` says what will be there; then this looks again from time to time. An
 * `available.json` says what `build` can make; without `build` such templates do not exist.
 */
export function loadTemplates(artefactsDir: string, build?: (name: string) => Promise<void>): InstalledTemplates {
  const dir = join(artefactsDir, 'templates');
  const requested = new Set<string>();
  const failed = new Map<string, { readonly at: number; readonly error: Error }>();
  let shelf = readTemplates(dir);
  let readAt = Date.now();
  const look = (again: boolean): Shelf => {
    if (again && Date.now() - readAt > lookAgainMs) {
      shelf = readTemplates(dir);
      readAt = Date.now();
    }
    return shelf;
  };
  const current = (): Shelf => look(shelf.pending.length + requested.size > 0);
  const request = (name: string): void => {
    if (build === undefined || requested.has(name)) return;
    const failure = failed.get(name);
    if (failure !== undefined && Date.now() - failure.at < restAfterFailureMs) {
      throw new PaddockError('template_not_ready', `the template ${name} could not be built: ${failure.error.message} It is tried again when it is asked for in a minute`, { field: 'template', retryAfterSeconds: 60 });
    }
    failed.delete(name);
    requested.add(name);
    build(name)
      .catch((error: unknown) => failed.set(name, { at: Date.now(), error: error as Error }))
      .finally(() => {
        readAt = 0;
        current();
        requested.delete(name);
      });
  };
  return Object.freeze({
    // Another process may have built one that is only offered here.
    find: (name: string) => current().ready.get(name) ?? (shelf.offered.includes(name) ? look(true).ready.get(name) : undefined),
    list: () => [...current().ready.values()],
    pending: () => [...current().pending, ...[...requested].filter((name) => !shelf.ready.has(name) && !shelf.pending.includes(name))],
    offered: () => (build === undefined ? [] : current().offered.filter((name) => !requested.has(name))),
    announced: (name: string) => current().announced.get(name),
    request,
    prepare: async () => {},
    byDigest: (digest: string) => [...current().ready.values()].find((template) => template.digest === digest) ?? findOlder(dir, digest),
  });
}

function readTemplates(dir: string): Shelf {
  const ready = new Map<string, InstalledTemplate>();
  const pending: string[] = [];
  const offered: string[] = [];
  const announced = new Map<string, Pick<Template, 'description' | 'limits'>>();
  for (const directory of listDirs(dir)) {
    const current = readJson(join(dir, directory, 'current.json'));
    if (current === null || typeof current['digest'] !== 'string') {
      const building = readJson(join(dir, directory, 'building.json'));
      const available = readJson(join(dir, directory, 'available.json'));
      const said = building ?? available;
      if (said === null) continue;
      const name = String(said['name']);
      (building === null ? offered : pending).push(name);
      announced.set(name, { description: String(said['description'] ?? ''), limits: parseLimits(said, name) });
      continue;
    }
    const home = join(dir, directory, current['digest']);
    const manifest = readJson(join(home, 'manifest.json'));
    if (manifest === null) throw new HostSetupError(`Template ${directory} has no manifest in ${home}: remove the directory ${join(dir, directory)} and run "npm start" to build it again.`);
    const template = parseManifest(manifest, directory, join(home, 'rootfs'));
    ready.set(template.name, template);
  }
  return { ready, pending, offered, announced };
}

function findOlder(dir: string, digest: string): InstalledTemplate | undefined {
  if (!/^[\w-]+$/.test(digest)) return undefined;
  for (const name of listDirs(dir)) {
    const home = join(dir, name, digest);
    const manifest = readJson(join(home, 'manifest.json'));
    if (manifest !== null) return parseManifest(manifest, name, join(home, 'rootfs'));
  }
  return undefined;
}

/** Names with a slash have a directory without, and ids go into paths too. */
function parseManifest(manifest: Record<string, unknown>, directory: string, rootfs: string): InstalledTemplate {
  const name = String(manifest['name'] ?? directory);
  const builtAt = Date.parse(String(manifest['built_at']));
  return Object.freeze({
    id: `tpl-${directory}`,
    name,
    digest: String(manifest['digest']),
    description: String(manifest['description'] ?? ''),
    limits: parseLimits(manifest, name),
    env: Object.freeze({ ...(manifest['env'] as Record<string, string> | undefined) }),
    builtAt: Number.isNaN(builtAt) ? null : builtAt,
    sizeBytes: typeof manifest['size_bytes'] === 'number' ? manifest['size_bytes'] : null,
    rootfs,
  });
}

function parseLimits(said: Record<string, unknown>, name: string): Limits {
  const limits = said['limits'] as Record<string, unknown> | undefined;
  const number = (key: string): number => {
    const value = limits?.[key];
    if (typeof value !== 'number' || !(value > 0)) throw new HostSetupError(`Template ${name}: its manifest has no usable limits.${key}.`);
    return value;
  };
  return Object.freeze({ vcpus: number('vcpus'), memoryMb: number('memory_mb'), diskMb: number('disk_mb'), pids: number('pids') });
}

function listDirs(dir: string): string[] {
  try {
    return readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
      .map((entry) => entry.name)
      .sort();
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw reason;
  }
}

function readJson(file: string): Record<string, unknown> | null {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw reason;
  }
}
