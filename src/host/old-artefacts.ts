import { readFileSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ToolError, runTool } from './tool.ts';

/** Digests of what guests and checkpoints were made from. */
export interface Needed {
  readonly templates: ReadonlySet<string>;
  readonly agents: ReadonlySet<string>;
  readonly runscs: ReadonlySet<string>;
}

/** Set-up gives a build its name before it makes it the current one. */
const tooYoungMs = 3_600_000;

/**
 * Removes what set-up has built, what is not current any more, and what nothing needs. Only for a directory that no other server uses.
 *
 * @returns how many builds were removed
 * @throws Error when a set-up is at work there
 */
export async function removeOldArtefacts(dir: string, needed: Needed, youngMs = tooYoungMs): Promise<number> {
  const oldBuilds = (below: string, field: string, wanted: ReadonlySet<string>): Promise<string[]> => findOld(join(dir, below), field, wanted, youngMs);
  const old = [
    ...(await oldBuilds('agent', 'sha', needed.agents)),
    ...(await oldBuilds('unpacker', 'sha', new Set())),
    ...(await oldBuilds('runsc', 'sha256', needed.runscs)),
  ];
  for (const name of await names(join(dir, 'templates'))) old.push(...(await oldBuilds(join('templates', name), 'digest', needed.templates)));
  if (old.length === 0) return 0;
  try {
    // The lock is that of set-up.
    await runTool('flock', ['--nonblock', '--conflict-exit-code', '75', dir, 'rm', '--recursive', '--force', '--one-file-system', '--', ...old], { timeoutMs: 600_000 });
  } catch (reason) {
    if (reason instanceof ToolError && reason.exitCode === 75) throw new Error('a set-up is at work; run this again when it has finished', { cause: reason });
    throw reason;
  }
  return old.length;
}

/** Directories named by a digest, without the current one: `current.json` names it under `field`. */
async function findOld(dir: string, field: string, needed: ReadonlySet<string>, youngMs: number): Promise<string[]> {
  let current: unknown;
  try {
    current = (JSON.parse(readFileSync(join(dir, 'current.json'), 'utf8')) as Record<string, unknown>)[field];
  } catch {
    return []; // never finished: set-up sees to it
  }
  if (typeof current !== 'string') return [];
  const old: string[] = [];
  for (const name of await names(dir)) {
    if (!/^[0-9a-f]{32,64}$/.test(name) || name === current || needed.has(name)) continue;
    if (Date.now() - (await stat(join(dir, name))).ctimeMs >= youngMs) old.push(join(dir, name));
  }
  return old;
}

async function names(dir: string): Promise<string[]> {
  try {
    return (await readdir(dir, { withFileTypes: true })).filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw reason;
  }
}
