import { createHash } from 'node:crypto';
import { featuresOf } from '../../../src/egress/scanners/injection/features.ts';
import { normalise } from '../../../src/egress/scanners/injection/normalise.ts';
import { BITS } from './rows.ts';
import { attackSentences, benignSentences } from './sentences.ts';

const disguises: readonly ((text: string) => string)[] = [
  (text) => text,
  (text) => Buffer.from(text).toString('base64'),
  (text) => [...text].join(' '),
  (text) => encodeURIComponent(text),
  (text) => JSON.stringify({ text: `${text}\n${text}` }),
  (text) => text.replaceAll('o', '0').replaceAll('a', 'а'),
];

/** Of what a model sees of a text: when it changes, the weights no longer fit and the model has to be trained again. */
export function featureFingerprint(): string {
  const hash = createHash('sha256');
  for (const sentence of [...benignSentences, ...attackSentences]) for (const disguise of disguises) hash.update(featuresOf(normalise(disguise(sentence)).text, BITS).buckets);
  return hash.digest('hex').slice(0, 16);
}
