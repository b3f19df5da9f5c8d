import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PauseState, RuntimeHandle } from '../runtime.ts';
import type { Runsc } from './command.ts';
import { ControlTimeout, ControlUnavailable, callKernel } from './control.ts';

const pauseWithinMs = 10_000;
/** A resume waits for a checkpoint that is still being written, even if nobody wants it any more. */
const resumeWithinMs = 60_000;
const never = new AbortController().signal;

/**
 * Pauses and resumes guests' kernels. A kernel counts its pauses, wants as many resumes, and dies of one too many. So a file says where a
 * guest is on the way, before each step is made: whoever finds none must not resume.
 */
export class Standstill {
  readonly #root: string;
  readonly #runsc: (build: string) => Promise<Runsc>;
  /** Those for which a call may yet take effect. */
  readonly #late = new Set<string>();

  constructor(runscRoot: string, runsc: (build: string) => Promise<Runsc>) {
    this.#root = runscRoot;
    this.#runsc = runsc;
  }

  async pause(handle: RuntimeHandle): Promise<void> {
    const { container, build } = handle;
    if (this.state(container) !== 'running') throw new Error(`guest ${container} is paused already`);
    this.#note(container, 'pausing');
    try {
      await callKernel(this.#socket(container), {
        method: 'containerManager.Pause',
        deadlineMs: pauseWithinMs,
        // By then nobody counts on it any more.
        onLate: () => {
          this.#late.delete(container);
          this.resume(handle).catch(() => undefined);
        },
      }).catch(async (reason: unknown) => {
        if (!(reason instanceof ControlUnavailable)) throw reason;
        await (await this.#runsc(build)).pause(container, { signal: never, deadlineMs: pauseWithinMs });
      });
      this.#note(container, 'paused');
    } catch (reason) {
      if (reason instanceof ControlTimeout) this.#late.add(container);
      else this.forget(container);
      throw reason;
    }
  }

  async resume({ container, build }: RuntimeHandle): Promise<void> {
    if (this.state(container) === 'running') throw new Error(`guest ${container} is not paused`);
    if (this.#late.has(container)) throw new Error(`guest ${container} is still being paused or resumed`);
    this.#note(container, 'resuming');
    const onLate = (): void => {
      this.#late.delete(container);
      this.forget(container);
    };
    try {
      // The command keeps books of its own, and resumes only what it has paused itself.
      if (this.#books(container).status === 'paused') await (await this.#runsc(build)).resume(container, { signal: never, deadlineMs: resumeWithinMs });
      else await callKernel(this.#socket(container), { method: 'containerManager.Resume', deadlineMs: resumeWithinMs, onLate });
      this.forget(container);
    } catch (reason) {
      if (reason instanceof ControlTimeout) this.#late.add(container);
      throw reason;
    }
  }

  state(container: string): PauseState {
    const note = readIfPresent(this.#file(container));
    if (note === null) return 'running';
    return note === 'paused' ? 'paused' : 'unknown';
  }

  forget(container: string): void {
    rmSync(this.#file(container), { force: true });
  }

  #note(container: string, step: 'pausing' | 'paused' | 'resuming'): void {
    writeFileSync(this.#file(container), step);
  }

  /** Named after the container, so that it goes with the rest of the container's state. */
  #file(container: string): string {
    return join(this.#root, `${container}.paused`);
  }

  /** runsc chooses another place when the path would be too long for a socket. */
  #socket(container: string): string {
    return this.#books(container).sandbox?.controlSocketPath ?? join(this.#root, `runsc-${container}.sock`);
  }

  #books(container: string): { readonly status?: string; readonly sandbox?: { readonly controlSocketPath?: string } } {
    return JSON.parse(readFileSync(join(this.#root, `${container}_sandbox:${container}.state`), 'utf8')) as { status?: string; sandbox?: { controlSocketPath?: string } };
  }
}

function readIfPresent(file: string): string | null {
  try {
    return readFileSync(file, 'utf8');
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw reason;
  }
}
