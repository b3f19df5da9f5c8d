import { randomUUID } from 'node:crypto';
import { open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { runTool } from '../tool.ts';

/** How the names of what is not finished end: the next start removes it. */
export const unfinished = '.partial';

/** A file that is there whole or not at all, also after a power cut. */
export async function writeDurably(file: string, text: string): Promise<void> {
  const draft = `${file}.${randomUUID()}${unfinished}`;
  const handle = await open(draft, 'wx', 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(draft, file);
  await flush(dirname(file));
}

/** By a program that takes names as bytes and follows no link; never into what is mounted below. */
export async function removeTree(dir: string): Promise<void> {
  await runTool('rm', ['--recursive', '--force', '--one-file-system', '--', dir], { timeoutMs: 30 * 60_000 });
}

/** Null when there is no such file. */
export async function readJson<T>(file: string): Promise<T | null> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as T;
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw reason;
  }
}

/** A directory's names survive a power cut from now on. */
export async function flush(dir: string): Promise<void> {
  const handle = await open(dir);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
