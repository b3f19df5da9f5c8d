export const SPACE = 0x20;
/** Stands for a wide gap (several spaces, a line end) until letters are joined: between spaced letters it divides words. */
export const WIDE_GAP = 0x1e;

export function isLetter(unit: number): boolean {
  return (unit | 0x20) >= 0x61 && (unit | 0x20) <= 0x7a;
}

/** Text with, for each code unit, the place in the original that it came from. Grows; `limit` stops it. */
export class Written {
  /** Valid below `length`. */
  units: Uint16Array;
  origins: Uint32Array;
  length = 0;
  readonly #limit: number;

  constructor(expected: number, limit: number) {
    this.#limit = limit;
    this.units = new Uint16Array(Math.min(expected + 16, limit));
    this.origins = new Uint32Array(this.units.length);
  }

  unit(unit: number, origin: number): void {
    if (this.length === this.units.length && !this.#grow()) return;
    this.units[this.length] = unit;
    this.origins[this.length++] = origin;
  }

  last(): number {
    return this.length === 0 ? 0 : this.units[this.length - 1]!;
  }

  #grow(): boolean {
    const size = Math.min(this.units.length * 2, this.#limit);
    if (size <= this.length) return false;
    const [units, origins] = [new Uint16Array(size), new Uint32Array(size)];
    units.set(this.units);
    origins.set(this.origins);
    this.units = units;
    this.origins = origins;
    return true;
  }
}
