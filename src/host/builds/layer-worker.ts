/* oxlint-disable unicorn/require-post-message-target-origin -- threads have no origin */
import { parentPort, workerData } from 'node:worker_threads';
import { fitLayer, type LayerFacts, type LayerKind, UnfitTree } from './layer-tree.ts';

export interface FittingRequest {
  readonly root: string;
  readonly kind: LayerKind;
  readonly since: number;
}

export type FittingAnswer = { readonly facts: LayerFacts } | { readonly unfit: boolean; readonly error: string };

const { root, kind, since } = workerData as FittingRequest;
let answer: FittingAnswer;
try {
  answer = { facts: fitLayer(root, kind, since) };
} catch (reason) {
  const unfit = reason instanceof UnfitTree || (reason as NodeJS.ErrnoException).code === 'ENAMETOOLONG';
  answer = { unfit, error: (reason as Error).message };
}
parentPort?.postMessage(answer);
