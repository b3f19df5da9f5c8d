import { lstat, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Sees to it that a tree has the places over which the agent and volumes are mounted in every guest: where the tree can be written gVisor
 * makes them itself. The caller knows that nobody else writes to the tree.
 */
export async function ensureMountPoints(tree: string): Promise<void> {
  const place = join(tree, '.paddock');
  for (const directory of [place, join(place, 'volumes')]) {
    await mkdir(directory, { mode: 0o755 }).catch(unlessThere);
    if (!(await lstat(directory)).isDirectory()) throw new Error(`${directory} is not a directory`);
  }
  await writeFile(join(place, 'agent'), '', { flag: 'wx', mode: 0o755 }).catch(unlessThere);
}

function unlessThere(reason: unknown): void {
  if ((reason as NodeJS.ErrnoException).code !== 'EEXIST') throw reason;
}
