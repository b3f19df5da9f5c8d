/** Lets work on the same thing happen one after another, in the order of the calls. */
export class Turns<K> {
  readonly #last = new Map<K, Promise<unknown>>();

  async take<T>(key: K, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key) ?? Promise.resolve();
    const mine = before.then(work, work);
    this.#last.set(key, mine);
    try {
      return await mine;
    } finally {
      if (this.#last.get(key) === mine) this.#last.delete(key);
    }
  }
}
