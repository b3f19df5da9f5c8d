import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Template, TemplateCatalog } from '../core/template.ts';
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

/**
 * The templates that set-up has built: `<artefacts>/templates/<name>/current.json` names the digest that is served,
 * `<digest>/manifest.json` says what it is. A `building.json` says what will be there; then this looks again from time to time.
 */
export function loadTemplates(artefactsDir: string): InstalledTemplates {
  const dir = join(artefactsDir, 'templates');
  let { ready, pending } = readTemplates(dir);
  let readAt = Date.now();
  const current = (): ReadonlyMap<string, InstalledTemplate> => {
    if (pending.length > 0 && Date.now() - readAt > lookAgainMs) {
      ({ ready, pending } = readTemplates(dir));
      readAt = Date.now();
    }
    return ready;
  };
  return Object.freeze({
    find: (name: string) => current().get(name),
    list: () => [...current().values()],
    pending: () => {
      current();
      return pending;
    },
    prepare: async () => {},
    byDigest: (digest: string) => [...current().values()].find((template) => template.digest === digest) ?? findOlder(dir, digest),
  });
}

function readTemplates(dir: string): { readonly ready: ReadonlyMap<string, InstalledTemplate>; readonly pending: readonly string[] } {
  const ready = new Map<string, InstalledTemplate>();
  const pending: string[] = [];
  for (const directory of listDirs(dir)) {
    const current = readJson(join(dir, directory, 'current.json'));
    const building = readJson(join(dir, directory, 'building.json'));
    if (current === null || typeof current['digest'] !== 'string') {
      if (building !== null) pending.push(String(building['name']));
      continue; // never finished building
    }
    const home = join(dir, directory, current['digest']);
    const manifest = readJson(join(home, 'manifest.json'));
    if (manifest === null) throw new HostSetupError(`Template ${directory} has no manifest in ${home}: remove the directory ${join(dir, directory)} and run "npm start" to build it again.`);
    const template = parseManifest(manifest, directory, join(home, 'rootfs'));
    ready.set(template.name, template);
  }
  return { ready, pending };
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
  const limits = manifest['limits'] as Record<string, unknown> | undefined;
  const number = (key: string): number => {
    const value = limits?.[key];
    if (typeof value !== 'number' || !(value > 0)) throw new HostSetupError(`Template ${name}: its manifest has no usable limits.${key}.`);
    return value;
  };
  const builtAt = Date.parse(String(manifest['built_at']));
  return Object.freeze({
    id: `tpl-${directory}`,
    name,
    digest: String(manifest['digest']),
    description: String(manifest['description'] ?? ''),
    limits: Object.freeze({ vcpus: number('vcpus'), memoryMb: number('memory_mb'), diskMb: number('disk_mb'), pids: number('pids') }),
    env: Object.freeze({ ...(manifest['env'] as Record<string, string> | undefined) }),
    builtAt: Number.isNaN(builtAt) ? null : builtAt,
    sizeBytes: typeof manifest['size_bytes'] === 'number' ? manifest['size_bytes'] : null,
    rootfs,
  });
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
