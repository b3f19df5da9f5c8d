import type { Clock } from '../clock.ts';
import { newAuthorityId } from '../ids.ts';
import type { SandboxAuthority } from '../network/inspection.ts';
import type { Authority } from './secret.ts';

/** Makes keys and certificates: the part of it that needs a library. */
export interface CertificateMaker {
  /** A new authority, good for as long as a sandbox may live. */
  authority(): Promise<SandboxAuthority>;
}

/** Enough for a hundred creates at once. */
const readyAhead = 100;
/** Each takes two milliseconds of the event loop, so they come one by one. */
const pauseMs = 25;

/** Certificate authorities for new sandboxes, made ahead so that no create waits for keys. */
export class Authorities {
  readonly #maker: CertificateMaker;
  readonly #clock: Clock;
  readonly #ready: SandboxAuthority[] = [];
  #timer: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(deps: { readonly maker: CertificateMaker; readonly clock: Clock }) {
    this.#maker = deps.maker;
    this.#clock = deps.clock;
  }

  async take(): Promise<Authority> {
    const made = this.#ready.pop() ?? (await this.#maker.authority());
    this.keepReady();
    return Object.freeze({ ...made, id: newAuthorityId(), createdAt: this.#clock.now() });
  }

  /** Sees to it, in the background, that enough are ready. */
  keepReady(): void {
    if (this.#timer !== null || this.#stopped || this.#ready.length >= readyAhead) return;
    this.#timer = setTimeout(() => {
      this.#make().finally(() => {
        this.#timer = null;
        this.keepReady();
      });
    }, pauseMs);
    this.#timer.unref();
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  async #make(): Promise<void> {
    try {
      this.#ready.push(await this.#maker.authority());
    } catch {
      // Whoever needs one hears of it.
    }
  }
}
