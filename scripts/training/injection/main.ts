import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeModel, encodeModel } from '../../../src/egress/scanners/injection/model-file.ts';
import { type Model, viewScores } from '../../../src/egress/scanners/injection/model.ts';
import { fitCalibration, fitMix, type Scored } from './calibrate.ts';
import { report } from './report.ts';
import { PARTS, readRows, type Row, rowsOf } from './rows.ts';
import { attackSentences, benignSentences } from './sentences.ts';
import { trainPhrases } from './train-phrases.ts';
import { trainTopics } from './train-topics.ts';

// Trains the injection model: `node scripts/training/injection/main.ts DIRECTORY`, where DIRECTORY has train.jsonl and valid.jsonl.
// The same rows and the same Node give the same bytes. What is chosen is chosen on train.jsonl; valid.jsonl is only reported on.

const target = join(import.meta.dirname, '../../../src/egress/scanners/injection');

function train(rows: readonly Row[]): Pick<Model, 'phrases' | 'topics'> {
  const phrase = { epochs: 20, rate: 1, decay: 2e-3, sharpness: 2, positives: 1.5, seed: 7 };
  const topic = { bits: 17, hidden: 16, epochs: 8, rate: 0.2, decay: 3e-3, dropped: 0.2, positives: 2 };
  return {
    phrases: [trainPhrases(rows, { ...phrase, window: 12 }), trainPhrases(rows, { ...phrase, window: 24 })],
    topics: [trainTopics(rows, { ...topic, dims: 8, windows: [8, 24], seed: 1 }), trainTopics(rows, { ...topic, dims: 4, windows: [6, 16], seed: 9 })],
  };
}

const directory = process.argv[2];
if (directory === undefined) {
  process.stderr.write('usage: node scripts/training/injection/main.ts DIRECTORY (with train.jsonl and valid.jsonl)\n');
  process.exit(2);
}
const say = (text: string): void => void process.stdout.write(`${text}\n`);

const { rows: given, dropped } = readRows(join(directory, 'train.jsonl'));
const own = [...rowsOf(benignSentences, 0), ...rowsOf(attackSentences, 1)];
say(`${given.length} rows and ${own.length} sentences to train on, ${dropped} rows left out for their licence`);

const held: (Scored & { row: Row })[] = [];
for (let part = 0; part < PARTS; part++) {
  const views = train([...given, ...own].filter((row) => row.part !== part));
  // Mix and calibration are of the data set alone.
  for (const row of given) if (row.part === part) held.push({ row, scores: viewScores(views, row.text).scores, target: row.target });
  say(`part ${part + 1} of ${PARTS} scored by what was learned from the others`);
}
const mix = fitMix(held);
const calibration = fitCalibration(mix, held);

const bytes = encodeModel({ name: 'injection-1', ...train([...given, ...own]), mix, calibration });
writeFileSync(join(target, 'weights.bin'), bytes);
const valid = readRows(join(directory, 'valid.jsonl'));
const metrics = report(decodeModel(bytes), held, valid.rows, { bytes: bytes.length, trained: given.length + own.length, dropped: { train: dropped, valid: valid.dropped } });
writeFileSync(join(target, 'metrics.json'), `${JSON.stringify(metrics, null, 2)}\n`);
say(`${bytes.length} bytes; held-out parts of train: ${JSON.stringify(metrics.crossValidation)}; valid: ${JSON.stringify(metrics.validation.all)}`);
