import { codeSamples } from '../../src/egress/testing/guardrails/code-samples.ts';
import { corpus } from '../../src/egress/testing/guardrails/corpus.ts';
import { hardCases } from '../../src/egress/testing/guardrails/hard-cases.ts';
import { accuracy, quality } from '../../src/egress/testing/guardrails/measure.ts';
import { toxicLines } from '../../src/egress/testing/guardrails/toxic-lines.ts';
import { RuleCodeSecurity } from '../../src/egress/scanners/code-security.ts';
import { InvisibleTextFilter } from '../../src/egress/scanners/invisible-text.ts';
import { StreamRedactor } from '../../src/egress/scanners/pii/stream-redactor.ts';
import { Rehydrator } from '../../src/egress/scanners/pii/rehydrator.ts';
import { TokenTable } from '../../src/egress/scanners/pii/tokens.ts';
import { piiTypes } from '../../src/egress/scanners/pii/types.ts';
import { LexiconToxicity } from '../../src/egress/scanners/toxicity.ts';
import { parseTransformations } from '../../src/core/guardrails/transformations.ts';
import { BodyTransformer } from '../../src/egress/scanners/transformations.ts';
import type { Figure, Scenario } from '../figures.ts';

const options = { types: new Set(piiTypes), phone: { region: 'US' } } as const;

/** A body as programs send them: records with some personal data, and much else. */
function records(bytes: number): Buffer {
  const rows: object[] = [];
  for (let size = 0; size < bytes - 600; ) {
    const i = rows.length;
    const row = {
      id: `3f2504e0-4f89-41d3-9a0c-${String(i).padStart(12, '0')}`,
      created_at: '2024-01-15T10:30:00.123Z',
      user: { full_name: 'Alice Johnson', email: `alice${i}@example.com`, phone: '+1 415 555 2671' },
      note: 'The quick brown fox jumps over the lazy dog, again and again, until the end of the day. Paid $1,234.50 with 4111 1111 1111 1111.',
      ip: '203.0.113.9',
      version: '1.22.3',
      commit: '9fceb02d0ae598e95dc970b74767f19372d61af8',
      items: [1, 2, 3, 4_000_000, 5.75],
    };
    rows.push(row);
    size += JSON.stringify(row).length + 1;
  }
  return Buffer.from(JSON.stringify(rows));
}

interface Filter {
  write(chunk: Buffer): Buffer;
  end(): Buffer;
}

function times(count: number, make: () => Filter, body: Buffer): number[] {
  const samples: number[] = [];
  for (let i = -Math.ceil(count / 4); i < count; i++) {
    const started = performance.now();
    const filter = make();
    for (let from = 0; from < body.length; from += 64 << 10) filter.write(body.subarray(from, from + (64 << 10)));
    filter.end();
    if (i >= 0) samples.push(performance.now() - started);
  }
  return samples;
}

/** What the scanners of bodies find, how often they are wrong, and what they cost. */
export const guardrails: Scenario = {
  name: 'guardrails',
  async *run({ quick }): AsyncIterable<Figure> {
    for (const { type, precision, recall } of quality([...corpus('held-out'), ...hardCases('held-out')], options)) {
      yield percent(`pii ${type}, precision`, precision);
      yield percent(`pii ${type}, recall`, recall);
    }
    for (const [name, samples, scorer, threshold] of [['toxicity at 0.5', toxicLines, new LexiconToxicity(), 0.5], ['toxicity at 0.9', toxicLines, new LexiconToxicity(), 0.9], ['code security at 0.6', codeSamples, new RuleCodeSecurity(), 0.6]] as const) {
      const { precision, recall } = accuracy(samples, scorer, threshold, 'held-out');
      yield percent(`${name}, precision`, precision);
      yield percent(`${name}, recall`, recall);
    }

    const table = new TokenTable();
    const redactor = (): Filter => new StreamRedactor({ ...options, syntax: 'json', replace: (type, value) => table.tokenFor(type, value, 'host') });
    const [small, large] = [records(4 << 10), records(8 << 20)];
    const first = redactor();
    const redacted = Buffer.concat([first.write(small), first.end()]);
    yield { name: `pii, ${(small.length / 1024).toFixed(1)} KiB of JSON`, unit: 'ms', samples: times(quick ? 200 : 1000, redactor, small), target: '3' };
    yield { name: 'rehydration of the same', unit: 'ms', samples: times(quick ? 200 : 1000, () => new Rehydrator({ syntax: 'json', valueFor: (token) => table.valueFor(token, 'host') }), redacted) };
    const streams: readonly (readonly [string, () => Filter])[] = [
      ['pii', redactor],
      ['rehydration', () => new Rehydrator({ syntax: 'json', valueFor: (token) => table.valueFor(token, 'host') })],
      ['invisible text', () => new InvisibleTextFilter({ syntax: 'json', strip: true, detectZeroWidth: true })],
      ['one bounded transformation', () => new BodyTransformer(parseTransformations([{ match: '[A-Z]{5}[0-9]{4}[A-Z]', replace: '#' }]))],
    ];
    for (const [name, make] of streams) {
      yield { name: `${name}, a stream of JSON`, unit: 'MB/s', samples: times(quick ? 2 : 5, make, large).map((ms) => large.length / 1e3 / ms) };
    }
  },
};

function percent(name: string, value: number): Figure {
  return { name, unit: '%', samples: [value * 100] };
}
