import type { VolumeId } from '../../../core/ids.ts';

/** Objects that a change has freed stay while somebody reads a volume as it was before. */
export class Readers {
  readonly #reading = new Map<VolumeId, { count: number; readonly freed: Set<string> }>();
  readonly #remove: (keys: Iterable<string>) => void;

  constructor(remove: (keys: Iterable<string>) => void) {
    this.#remove = remove;
  }

  enter(id: VolumeId): Disposable {
    const reading = this.#reading.get(id) ?? { count: 0, freed: new Set() };
    reading.count++;
    this.#reading.set(id, reading);
    let left = false;
    return {
      [Symbol.dispose]: () => {
        if (left) return;
        left = true;
        if (--reading.count > 0) return;
        this.#reading.delete(id);
        this.#remove(reading.freed);
      },
    };
  }

  free(id: VolumeId, keys: Iterable<string>): void {
    const reading = this.#reading.get(id);
    if (reading === undefined) return this.#remove(keys);
    for (const key of keys) reading.freed.add(key);
  }

  isNeeded(id: VolumeId, key: string): boolean {
    return this.#reading.get(id)?.freed.has(key) === true;
  }
}
