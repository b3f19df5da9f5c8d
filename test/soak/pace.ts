/** Whether this is the form that runs with every change. */
export const short = process.env['PADDOCK_SOAK'] === 'short';

/** The value at a fraction of the sorted list, untrimmed: 0.99 of a hundred is the one before the largest. */
export function quantile(values: readonly number[], fraction: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const value = sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * fraction) - 1)];
  if (value === undefined) throw new Error('no values');
  return value;
}
