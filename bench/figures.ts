/** One measured figure: every sample counts, none is trimmed. */
export interface Figure {
  readonly name: string;
  readonly unit: 'ms' | 'MB/s' | '1/s' | 'MiB' | '% of a core' | '×' | '%';
  readonly samples: readonly number[];
  /** What is to be reached, as text: shown beside the figure, never asserted. */
  readonly target?: string;
  /** Where the time goes: medians of the stages, in milliseconds. */
  readonly stages?: Readonly<Record<string, number>>;
}

/** A group of figures from one set-up. Yields them as they are made, so that a long run shows progress. */
export interface Scenario {
  readonly name: string;
  run(options: { quick: boolean }): AsyncIterable<Figure>;
}

/** Nearest-rank percentile; `q` from 0 to 1. */
export function percentile(samples: readonly number[], q: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? Number.NaN;
}

export function median(samples: readonly number[]): number {
  return percentile(samples, 0.5);
}

export async function timed<T>(work: () => Promise<T>): Promise<{ ms: number; value: T }> {
  const started = performance.now();
  const value = await work();
  return { ms: performance.now() - started, value };
}

const columns = ['figure', 'n', 'p50', 'p99', 'max', 'unit', 'reach'] as const;

export function row(figure: Figure): string {
  const { name, unit, samples, target = '' } = figure;
  const cells = [name, String(samples.length), show(median(samples)), show(percentile(samples, 0.99)), show(Math.max(...samples)), unit, target];
  const line = layout(cells);
  const stages = Object.entries(figure.stages ?? {});
  return stages.length === 0 ? line : `${line}\n${stages.map(([stage, ms]) => layout([`  · ${stage}`, '', show(ms), '', '', 'ms', ''])).join('\n')}`;
}

export function heading(): string {
  return `${layout(columns)}\n${'─'.repeat(112)}`;
}

function layout(cells: readonly string[]): string {
  const widths = [52, 5, 9, 9, 9, 13, 14];
  return cells.map((cell, i) => (i === 0 || i > 4 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join(' ').trimEnd();
}

function show(value: number): string {
  if (!Number.isFinite(value)) return '–';
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** The stages that the server reports for a create, from its `Server-Timing` headers, as medians. */
export function medianStages(headers: readonly (string | null)[]): Record<string, number> {
  const stages = new Map<string, number[]>();
  for (const header of headers) {
    for (const [, stage, ms] of (header ?? '').matchAll(/([\w-]+);dur=([\d.]+)/g)) {
      const list = stages.get(stage ?? '') ?? [];
      list.push(Number(ms));
      stages.set(stage ?? '', list);
    }
  }
  return Object.fromEntries([...stages].map(([stage, list]) => [stage, median(list)]));
}
