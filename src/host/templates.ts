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
}

/**
 * The templates that set-up has built: `<artefacts>/templates/<name>/current.json` names the digest that is served,
 * `<digest>/manifest.json` says what it is.
 */
export function loadTemplates(artefactsDir: string): InstalledTemplates {
  const dir = join(artefactsDir, 'templates');
  const byName = new Map<string, InstalledTemplate>();
  for (const name of listDirs(dir)) {
    const current = readJson(join(dir, name, 'current.json'));
    if (current === null || typeof current['digest'] !== 'string') continue; // never finished building
    const home = join(dir, name, current['digest']);
    const manifest = readJson(join(home, 'manifest.json'));
    if (manifest === null) throw new HostSetupError(`Template ${name} has no manifest in ${home}: remove the directory ${join(dir, name)} and run "npm start" to build it again.`);
    byName.set(name, parseManifest(manifest, name, join(home, 'rootfs')));
  }
  return Object.freeze({
    find: (name: string) => byName.get(name),
    list: () => [...byName.values()],
    byDigest: (digest: string) => [...byName.values()].find((template) => template.digest === digest) ?? findOlder(dir, digest),
  });
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

function parseManifest(manifest: Record<string, unknown>, name: string, rootfs: string): InstalledTemplate {
  const limits = manifest['limits'] as Record<string, unknown> | undefined;
  const number = (key: string): number => {
    const value = limits?.[key];
    if (typeof value !== 'number' || !(value > 0)) throw new HostSetupError(`Template ${name}: its manifest has no usable limits.${key}.`);
    return value;
  };
  return Object.freeze({
    id: `tpl-${name}`,
    name,
    digest: String(manifest['digest']),
    description: String(manifest['description'] ?? ''),
    limits: Object.freeze({ vcpus: number('vcpus'), memoryMb: number('memory_mb'), diskMb: number('disk_mb'), pids: number('pids') }),
    env: Object.freeze({ ...(manifest['env'] as Record<string, string> | undefined) }),
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
