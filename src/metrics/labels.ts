/** Values that a label may have besides those of closed sets. */
const most = 64;

/** Keeps the number of series bounded whatever is counted: beyond so many values of a label everything new is `other`. */
export class Labels {
  readonly #seen = new Map<string, Set<string>>();

  bounded(label: string, value: string, limit = most): string {
    let seen = this.#seen.get(label);
    if (seen === undefined) this.#seen.set(label, (seen = new Set()));
    if (seen.has(value)) return value;
    if (seen.size >= limit) return 'other';
    seen.add(value);
    return value;
  }
}
