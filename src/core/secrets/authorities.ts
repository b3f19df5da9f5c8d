import type { Clock } from '../clock.ts';
import { newAuthorityId } from '../ids.ts';
import type { SandboxAuthority } from '../network/inspection.ts';
import type { Authority } from './secret.ts';

/** Makes keys and certificates: the part of it that needs a library. */
export interface CertificateMaker {
  /** A new authority, good for as long as a sandbox may live. */
  authority(): Promise<SandboxAuthority>;
}

/** Enough for creates that come together; more are made while they are waited for. */
const readyAhead = 8;

/** Certificate authorities for new sandboxes, made ahead so that no create waits for keys. */
export class Authorities {
  readonly #maker: CertificateMaker;
  readonly #clock: Clock;
  readonly #ready: Promise<SandboxAuthority>[] = [];

  constructor(deps: { readonly maker: CertificateMaker; readonly clock: Clock }) {
    this.#maker = deps.maker;
    this.#clock = deps.clock;
  }

  async take(): Promise<Authority> {
    const made = this.#ready.shift() ?? this.#maker.authority();
    setImmediate(() => this.#fill());
    return Object.freeze({ ...(await made), id: newAuthorityId(), createdAt: this.#clock.now() });
  }

  #fill(): void {
    if (this.#ready.length >= readyAhead) return;
    const making = this.#maker.authority();
    making.catch(() => {}); // whoever takes it hears of it
    this.#ready.push(making);
  }
}
