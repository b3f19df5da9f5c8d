/**
 * Who uses what, within this process: many may share a thing, one may take it for itself, to do away with it. Nobody waits; who comes
 * second is told so.
 */
export class Holds {
  readonly #shared = new Map<string, number>();
  readonly #taken = new Set<string>();

  /** Null when somebody has taken it. */
  share(name: string): Disposable | null {
    if (this.#taken.has(name)) return null;
    this.#shared.set(name, (this.#shared.get(name) ?? 0) + 1);
    return once(() => {
      const left = (this.#shared.get(name) ?? 1) - 1;
      if (left === 0) this.#shared.delete(name);
      else this.#shared.set(name, left);
    });
  }

  /** Null when somebody shares it or has taken it. */
  take(name: string): Disposable | null {
    if (this.#taken.has(name) || this.#shared.has(name)) return null;
    this.#taken.add(name);
    return once(() => void this.#taken.delete(name));
  }

  /** Names of what is shared now that begin like this. */
  sharedUnder(prefix: string): ReadonlySet<string> {
    return new Set([...this.#shared.keys()].filter((name) => name.startsWith(prefix)));
  }
}

function once(release: () => void): Disposable {
  let held = true;
  return {
    [Symbol.dispose]: () => {
      if (held) release();
      held = false;
    },
  };
}
