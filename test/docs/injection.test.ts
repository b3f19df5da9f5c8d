import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { injectionModes, sensitivities, tabledThreshold } from '../../src/egress/scanners/injection/thresholds.ts';
import { repository } from '../harness/server.ts';

interface Recall {
  readonly rows: number;
  readonly recallAt1PercentFpr: number;
  readonly recallAt095: number;
}
interface Metrics {
  readonly model: { readonly bytes: number };
  readonly crossValidation: { readonly rows: number; readonly auc: number };
  readonly validation: {
    readonly all: { readonly rows: number; readonly auc: number; readonly recallAt1PercentFpr: number };
    readonly overt: Recall;
    readonly covert: Recall;
    readonly byKind: Readonly<Record<string, Recall>>;
    readonly thresholds: readonly { readonly mode: string; readonly sensitivity: string; readonly threshold: number; readonly recall: number; readonly falsePositives: number; readonly falsePositivesOfHard: number }[];
    readonly calibration: readonly { readonly from: number; readonly to: number; readonly rows: number; readonly meanScore: number; readonly injections: number }[];
  };
}

const folder = join(repository, 'src/egress/scanners/injection');
const page = readFileSync(join(repository, 'docs/guardrails-injection.md'), 'utf8');
const { model, crossValidation, validation } = JSON.parse(readFileSync(join(folder, 'metrics.json'), 'utf8')) as Metrics;
const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;

test('the page about injections has the figures that the training program measured', () => {
  const rows = [
    `| AUC | ${crossValidation.auc} | ${validation.all.auc} |`,
    ...[['overt', validation.overt] as const, ['covert', validation.covert] as const, ...Object.entries(validation.byKind)].map(([kind, { rows, recallAt1PercentFpr, recallAt095 }]) => `| ${kind} | ${rows} | ${percent(recallAt1PercentFpr)} | ${percent(recallAt095)} |`),
    ...validation.thresholds.map(({ mode, sensitivity, threshold, recall, falsePositives, falsePositivesOfHard }) => `| \`${mode}\` | ${sensitivity} | ${threshold} | ${percent(recall)} | ${percent(falsePositives)} | ${percent(falsePositivesOfHard)} |`),
    ...validation.calibration.map(({ from, to, rows, meanScore, injections }) => `| ${from} to ${to} | ${rows} | ${meanScore.toFixed(3)} | ${percent(injections)} |`),
  ];
  for (const row of rows) assert.ok(page.includes(row), `no row "${row}"`);
});

test('the thresholds that were measured are those that the program uses, and the model is the one that was measured', () => {
  assert.deepEqual(
    validation.thresholds.map(({ mode, sensitivity, threshold }) => [mode, sensitivity, threshold]),
    injectionModes.flatMap((mode) => sensitivities.map((sensitivity) => [mode, sensitivity, tabledThreshold(sensitivity, mode)])),
  );
  assert.equal(statSync(join(folder, 'weights.bin')).size, model.bytes);
});

test('the model is as good as was asked for, and small', () => {
  assert.ok(validation.all.auc >= 0.96 && validation.all.recallAt1PercentFpr >= 0.7);
  assert.ok(model.bytes <= 4 * 2 ** 20);
});
