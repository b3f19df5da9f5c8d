import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RuntimeHandle } from '../runtime.ts';
import type { Runsc } from './command.ts';
import { ControlTimeout, ControlUnavailable, callKernel } from './control.ts';

const pauseWithinMs = 10_000;
/** A resume waits for a checkpoint that is still being written, even if nobody wants it any more. */
const resumeWithinMs = 60_000;
const never = new AbortController().signal;

/**
 * Pauses and resumes guests' kernels. A kernel counts its pauses, wants as many resumes, and dies of one too many. So each pause is
 * written down in a file before it is made, and the file goes after the resume: where there is none, nobody may resume.
 */
export class Standstill {
  readonly #root: string;
  readonly #runsc: (build: string) => Promise<Runsc>;

  constructor(runscRoot: string, runsc: (build: string) => Promise<Runsc>) {
    this.#root = runscRoot;
    this.#runsc = runsc;
  }

  async pause(handle: RuntimeHandle): Promise<void> {
    const { container, build } = handle;
    if (this.mayBePaused(container)) throw new Error(`guest ${container} is paused already`);
    writeFileSync(this.#mark(container), '');
    try {
      await callKernel(this.#socket(container), {
        method: 'containerManager.Pause',
        deadlineMs: pauseWithinMs,
        // By then nobody counts on it any more.
        onLate: () => void this.resume(handle).catch(() => undefined),
      }).catch(async (reason: unknown) => {
        if (!(reason instanceof ControlUnavailable)) throw reason;
        await (await this.#runsc(build)).pause(container, { signal: never, deadlineMs: pauseWithinMs });
      });
    } catch (reason) {
      if (!(reason instanceof ControlTimeout)) this.forgetPause(container);
      throw reason;
    }
  }

  async resume({ container, build }: RuntimeHandle): Promise<void> {
    if (!this.mayBePaused(container)) throw new Error(`guest ${container} is not paused`);
    // The command keeps books of its own, and resumes only what it has paused itself.
    if (this.#state(container).status === 'paused') await (await this.#runsc(build)).resume(container, { signal: never, deadlineMs: resumeWithinMs });
    else await callKernel(this.#socket(container), { method: 'containerManager.Resume', deadlineMs: resumeWithinMs, onLate: () => this.forgetPause(container) });
    this.forgetPause(container);
  }

  mayBePaused(container: string): boolean {
    return existsSync(this.#mark(container));
  }

  forgetPause(container: string): void {
    rmSync(this.#mark(container), { force: true });
  }

  /** Named after the container, so that it goes with the rest of the container's state. */
  #mark(container: string): string {
    return join(this.#root, `${container}.paused`);
  }

  /** runsc chooses another place when the path would be too long for a socket. */
  #socket(container: string): string {
    return this.#state(container).sandbox?.controlSocketPath ?? join(this.#root, `runsc-${container}.sock`);
  }

  #state(container: string): { readonly status?: string; readonly sandbox?: { readonly controlSocketPath?: string } } {
    return JSON.parse(readFileSync(join(this.#root, `${container}_sandbox:${container}.state`), 'utf8')) as { status?: string; sandbox?: { controlSocketPath?: string } };
  }
}
