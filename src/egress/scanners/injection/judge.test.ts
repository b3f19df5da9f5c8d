import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JudgedScorer } from './judge.ts';
import { type InjectionScore, type InjectionScorer, labelOf, type ScoreOptions } from './scorer.ts';

/** A scorer with a fixed answer, to see who is asked what. */
class Oracle implements InjectionScorer {
  readonly asked: { text: string; options: ScoreOptions | undefined }[] = [];
  readonly answer: InjectionScore;
  closed = false;
  constructor(answer: InjectionScore | number, excerpt: { start: number; end: number } | null = null) {
    this.answer = typeof answer === 'number' ? { scanned: true, score: answer, label: labelOf(answer), excerpt, by: 'server' } : answer;
  }
  async score(text: string, options?: ScoreOptions): Promise<InjectionScore> {
    this.asked.push({ text, options });
    return this.answer;
  }
  async close(): Promise<void> {
    this.closed = true;
  }
}

test('the judge is asked where the first is unsure, and its score counts', async () => {
  for (const [first, asked] of [[0, 0], [0.29, 0], [0.3, 1], [0.6, 1], [0.969, 1], [0.97, 0], [1, 0]] as const) {
    const judge = new Oracle(0.1);
    const score = await new JudgedScorer(new Oracle(first, { start: 2, end: 5 }), judge).score('a text');
    assert.equal(judge.asked.length, asked, `${first}`);
    if (asked === 1) assert.deepEqual(score, { scanned: true, score: 0.1, label: 'benign', excerpt: { start: 2, end: 5 }, by: 'judge' });
    else assert.equal(score.scanned && score.score, first);
  }
});

test('with "always" the judge is asked about everything that could be scanned', async () => {
  const judge = new Oracle(0.99);
  const score = await new JudgedScorer(new Oracle(0), judge, { always: true }).score('a text', { policy: 'no payments' });
  assert.equal(score.scanned && score.by, 'judge');
  assert.deepEqual(judge.asked, [{ text: 'a text', options: { policy: 'no payments' } }]);
});

test('a judge that fails does not hide the first score, and is not silent', async () => {
  const silent = new Oracle({ scanned: false, reason: 'the model server did not answer within 10 ms' });
  const score = await new JudgedScorer(new Oracle(0.8), silent).score('a text');
  assert.deepEqual(score, { scanned: true, score: 0.8, label: 'injection', excerpt: null, by: 'server', unjudged: 'the model server did not answer within 10 ms' });
});

test('a text that the first could not scan is not judged by a part of it', async () => {
  const judge = new Oracle(0);
  const score = await new JudgedScorer(new Oracle({ scanned: false, reason: 'too long' }), judge, { always: true }).score('a text');
  assert.deepEqual(score, { scanned: false, reason: 'too long' });
  assert.equal(judge.asked.length, 0);
});

test('of a long text the judge sees what surrounds the suspicious stretch', async () => {
  const text = `${'x'.repeat(5000)}ATTACK${'y'.repeat(5000)}`;
  for (const [start, shown] of [[5000, 'ATTACK'], [0, 'x'.repeat(100)], [10_000, 'y'.repeat(100)]] as const) {
    const judge = new Oracle(0.9, { start: 1, end: 3 });
    const score = await new JudgedScorer(new Oracle(0.5, { start, end: start + 6 }), judge, { context: 100 }).score(text);
    const { text: seen } = judge.asked[0]!;
    assert.equal(seen.length, 100);
    assert.ok(seen.includes(shown));
    const at = text.indexOf(seen);
    if (start === 5000) assert.deepEqual(score.scanned && score.excerpt, { start: at + 1, end: at + 3 });
  }
});

test('a band that is none is refused, and closing closes both', async () => {
  assert.throws(() => new JudgedScorer(new Oracle(0), new Oracle(0), { unsure: { from: 0.9, to: 0.2 } }), /the unsure scores must lie between 0 and 1, not from 0.9 to 0.2/);
  const [first, judge] = [new Oracle(0), new Oracle(0)];
  await new JudgedScorer(first, judge).close();
  assert.deepEqual([first.closed, judge.closed], [true, true]);
});
