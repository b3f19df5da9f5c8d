import { networkInterfaces } from 'node:os';
import { parseIpv4 } from '../core/network/addresses.ts';

/** IPv4 addresses of this machine's interfaces, as unsigned 32-bit numbers. A guest must not reach them under any name. */
export class OwnAddresses {
  #addresses: ReadonlySet<number> = new Set();
  #readAt = Number.NEGATIVE_INFINITY;

  /** At most `maxAgeMs` old: an interface may come up at any time. */
  current(maxAgeMs = 1000): ReadonlySet<number> {
    const now = performance.now();
    if (now - this.#readAt > maxAgeMs) {
      this.#readAt = now;
      this.#addresses = new Set(
        Object.values(networkInterfaces())
          .flatMap((all) => all ?? [])
          .filter(({ family }) => family === 'IPv4')
          .map(({ address }) => parseIpv4(address))
          .filter((address) => address !== null),
      );
    }
    return this.#addresses;
  }
}
