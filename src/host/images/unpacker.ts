import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { BuildFailure } from '../../core/templates/build-host.ts';
import { isObject } from './manifest.ts';

/** How much of an image is left to be unpacked. */
export interface Allowance {
  /** Of what the tree takes on the disk. */
  readonly maxBytes: number;
  /** What it takes already. */
  readonly bytes: number;
  /** Files and directories that may still come. */
  readonly entries: number;
  /** Bytes of tar that may still come. */
  readonly stream: number;
}

export interface AppliedLayer {
  /** SHA-256 of the tar, `sha256:…`. */
  readonly diffId: string;
  /** What the tree takes now. */
  readonly bytes: number;
  readonly entries: number;
  readonly stream: number;
  /** Device nodes that were left out. */
  readonly skipped: number;
}

const longestAnswer = 64 * 1024;

/**
 * Applies one layer to the tree in `dir`, in a process that has nothing but that directory. When this returns or throws, the process is gone.
 *
 * @param program the unpacker that set-up has built
 * @param tar decompressed
 * @param layer for messages: `layer 2 of 5`
 * @throws BuildFailure, or whatever `tar` throws
 */
export async function applyLayer(program: string, dir: string, tar: AsyncIterable<Uint8Array>, allowance: Allowance, layer: string, signal: AbortSignal): Promise<AppliedLayer> {
  signal.throwIfAborted();
  const { maxBytes, bytes, entries, stream } = allowance;
  const limits = Object.entries({ 'max-bytes': maxBytes, bytes, 'max-entries': entries, 'max-stream': stream }).flatMap(([name, value]) => [`-${name}`, String(Math.max(0, Math.floor(value)))]);
  const child = spawn(program, [dir, ...limits], { stdio: ['pipe', 'pipe', 'pipe'], cwd: '/', env: {} });
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].on('data', (chunk: Buffer) => {
      if (said[name].length < longestAnswer) said[name] += chunk.toString();
    });
  }
  // All writers of the pipes have ended then, the confined process among them.
  const closed = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
  const kill = (): void => void child.kill('SIGKILL');
  signal.addEventListener('abort', kill, { once: true });
  try {
    await feed(child.stdin, tar, closed);
  } catch (reason) {
    kill(); // a tar that is cut off could pass for a whole one
    await closed;
    signal.throwIfAborted();
    throw reason;
  } finally {
    signal.removeEventListener('abort', kill);
  }
  signal.throwIfAborted();
  const [code, killer] = await closed;
  return readAnswer(said, code, killer, layer);
}

/** Hands over the whole tar, or as much as the process takes before it ends. Throws what the tar throws. */
async function feed(stdin: Writable, tar: AsyncIterable<Uint8Array>, closed: Promise<unknown>): Promise<void> {
  stdin.on('error', () => {}); // the process tells why it read no further
  const over = closed.then(() => null);
  const iterator = tar[Symbol.asyncIterator]();
  try {
    for (;;) {
      const coming = iterator.next();
      coming.catch(() => {}); // when the process ends first
      const next = await Promise.race([coming, over]);
      if (next === null) return;
      if (next.done === true) break;
      if (!stdin.write(next.value)) await Promise.race([once(stdin, 'drain').catch(() => over), over]);
    }
    stdin.end();
    await over;
  } finally {
    // Not waited for: a tar that stands still hears it when whatever it reads is closed.
    iterator.return?.().catch(() => {});
  }
}

function readAnswer({ stdout, stderr }: { readonly stdout: string; readonly stderr: string }, code: number | null, killer: NodeJS.Signals | null, layer: string): AppliedLayer {
  let answer: unknown = null;
  try {
    answer = code === 0 ? JSON.parse(stdout) : null;
  } catch {
    // told below
  }
  if (!isObject(answer)) {
    if (/out of memory|cannot allocate memory/.test(stderr)) throw new BuildFailure('image_unsafe', `${layer} needs more memory to be unpacked than any image should`);
    if (/no space left on device|disk quota exceeded/.test(stderr)) throw Object.assign(new Error(`${layer} does not fit on this machine's disk`), { code: 'ENOSPC' });
    throw new Error(`the unpacker failed at ${layer} (${killer ?? `exit ${code}`}): ${stderr.trim().slice(0, 500)}`);
  }
  const { problem, detail, diff_id: hash, bytes, entries, stream, skipped } = answer;
  const text = `${layer}: ${String(detail).slice(0, 1000)}`;
  if (problem === 'unsafe') throw new BuildFailure('image_unsafe', text);
  if (problem === 'too_large') throw new BuildFailure('image_too_large', text);
  if (problem === 'broken') throw new BuildFailure('image_pull_failed', text);
  const count = (value: unknown): number => (typeof value === 'number' && Number.isSafeInteger(value) ? value : Number.NaN);
  const applied = { diffId: `sha256:${String(hash)}`, bytes: count(bytes), entries: count(entries), stream: count(stream), skipped: count(skipped) };
  if (problem !== undefined || Object.values(applied).some((value) => Number.isNaN(value))) throw new Error(`the unpacker gave an answer that cannot be read at ${layer}`);
  return Object.freeze(applied);
}
