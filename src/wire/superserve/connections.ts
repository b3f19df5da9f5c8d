import { PaddockError } from '../../core/errors.ts';
import type { SandboxId } from '../../core/ids.ts';

const mostPerSandbox = 200;
const mostPerAddress = 100;

/** Counts the requests and sockets of the data plane (contract, section 5). */
export class Connections {
  readonly #counts = new Map<string, number>();

  /**
   * Counts one until the function returned is called.
   *
   * @param address of the client; loopback is not counted, because everybody behind a gateway or reverse proxy has it.
   * @throws PaddockError `rate_limited` naming the limit.
   */
  enter(id: SandboxId, address: string | undefined): () => void {
    const names: [name: string, limit: number, what: string][] = [[id, mostPerSandbox, 'of this sandbox']];
    if (address !== undefined && !isLoopback(address)) names.push([address, mostPerAddress, 'from this address']);
    for (const [name, limit, what] of names) {
      if ((this.#counts.get(name) ?? 0) >= limit) throw new PaddockError('rate_limited', `${limit} connections ${what} are open, and that is the limit; close one, or try again later`, { retryAfterSeconds: 1 });
    }
    for (const [name] of names) this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    let left = false;
    return () => {
      if (left) return;
      left = true;
      for (const [name] of names) {
        const count = (this.#counts.get(name) ?? 1) - 1;
        if (count === 0) this.#counts.delete(name);
        else this.#counts.set(name, count);
      }
    };
  }
}

export function isLoopback(address: string): boolean {
  return address === '::1' || /^(::ffff:)?127\./.test(address);
}
