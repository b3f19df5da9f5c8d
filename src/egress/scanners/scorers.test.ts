import assert from 'node:assert/strict';
import { test } from 'node:test';
import { codeSamples } from '../testing/guardrails/code-samples.ts';
import { accuracy } from '../testing/guardrails/measure.ts';
import { toxicLines } from '../testing/guardrails/toxic-lines.ts';
import { languageNamed, languagesOf, RuleCodeSecurity } from './code-security.ts';
import { combined, type Scorer } from './scorer.ts';
import { LexiconToxicity } from './toxicity.ts';

test('hurtful lines are told from others better than by chance; the page of the guardrails says how well', () => {
  const { precision, recall } = accuracy(toxicLines, new LexiconToxicity(), 0.5, 'tuning');
  assert.ok(precision >= 0.9 && recall >= 0.8, `${precision}, ${recall}`);
});

test('dangerous code is told from other code', () => {
  const { precision, recall } = accuracy(codeSamples, new RuleCodeSecurity(), 0.6, 'tuning');
  assert.ok(precision >= 0.9 && recall >= 0.9, `${precision}, ${recall}`);
});

test('a score names the rule that weighed most', () => {
  assert.deepEqual(combined([{ label: 'a', weight: 0.5 }, { label: 'b', weight: 0.6 }]), { score: 0.8, label: 'b' });
  assert.deepEqual(combined([]), { score: 0, label: null });
  assert.equal(new RuleCodeSecurity().score('curl https://example.com/x | sh').label, 'pipe_to_shell');
  assert.equal(new LexiconToxicity().score('I will kill you').label, 'threat');
});

test('words taken back, reported or about machines weigh less than those aimed at somebody', () => {
  const score = (text: string): number => new LexiconToxicity().score(text).score;
  assert.ok(score('you are an idiot') > score('an idiot'));
  assert.ok(score('you are not an idiot') < 0.3);
  assert.ok(score('the word idiot') < 0.3);
  assert.equal(score('kill the process and its children'), 0);
});

test('languages are recognised, and code in excluded ones is not judged', () => {
  assert.deepEqual(languagesOf('def f(x):\n    return x\n')[0], 'python');
  assert.deepEqual(languagesOf('const x = 1;\nconsole.log(x)')[0], 'javascript');
  assert.deepEqual(languagesOf('#!/bin/bash\necho hi')[0], 'shell');
  assert.deepEqual(languagesOf('A letter about nothing in particular.'), []);
  assert.equal(languageNamed('TypeScript'), 'javascript');
  assert.equal(languageNamed('cobol'), null);
  const code = 'import os\nimport pickle\ndef f(x):\n    return pickle.loads(x)\n';
  assert.ok(new RuleCodeSecurity().score(code).score >= 0.6);
  assert.equal(new RuleCodeSecurity({ excludedLanguages: ['Python'] }).score(code).score, 0);
});

test('imports are suspicious only when that is asked for', () => {
  const code = 'import ctypes\nprint(1)';
  assert.ok(new RuleCodeSecurity().score(code).score > 0);
  assert.equal(new RuleCodeSecurity({ detectSuspiciousImports: false }).score(code).score, 0);
});

for (const [name, scorer] of [['toxicity', new LexiconToxicity()], ['code', new RuleCodeSecurity()]] as readonly [string, Scorer][]) {
  test(`attack: texts that patterns of ${name} look at for long cost in proportion to their length`, () => {
    const judged = (text: string): number => {
      const before = process.cpuUsage();
      for (let from = 0; from < text.length; from += 16 << 10) assert.ok(scorer.score(text.slice(from, from + (16 << 10))).score <= 1);
      const { user, system } = process.cpuUsage(before);
      return user + system;
    };
    for (const unit of ['a', ' ', 'curl ', 'eval(', 'exec(f"', 'select ', 'you are ', 'i will i will ', 'password = "', 'bash -i ', 'const x = ', '\n', '$', 'fuck ', 'aaa', '0']) {
      const text = unit.repeat((256 << 10) / unit.length);
      const quarter = text.slice(0, text.length / 4);
      judged(quarter);
      const small = Math.min(judged(quarter), judged(quarter));
      assert.ok(Math.min(judged(text), judged(text)) < small * 9 + 50_000, unit);
    }
  });
}
