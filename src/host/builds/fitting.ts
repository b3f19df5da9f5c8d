import { Worker } from 'node:worker_threads';
import { BuildFailure } from '../../core/templates/build-host.ts';
import type { LayerFacts } from './layer-tree.ts';
import type { FittingAnswer, FittingRequest } from './layer-worker.ts';

/**
 * `fitLayer` in a thread of its own, which reads every byte of the tree. Throws `BuildFailure` when no layer can hold the tree; the signal
 * ends the thread, and the tree is then fit for nothing.
 */
export async function fitted(request: FittingRequest, signal: AbortSignal): Promise<LayerFacts> {
  signal.throwIfAborted();
  const worker = new Worker(new URL('./layer-worker.ts', import.meta.url), { workerData: request });
  const answered = Promise.withResolvers<FittingAnswer>();
  worker.once('message', answered.resolve);
  worker.once('error', answered.reject);
  worker.once('exit', () => answered.reject(new Error('the thread that reads a layer ended')));
  const stop = (): void => answered.reject(signal.reason as Error);
  signal.addEventListener('abort', stop, { once: true });
  try {
    const answer = await answered.promise;
    if ('facts' in answer) return answer.facts;
    if (answer.unfit) throw new BuildFailure('build_failed', answer.error);
    throw new Error(`a layer could not be read: ${answer.error}`);
  } finally {
    signal.removeEventListener('abort', stop);
    await worker.terminate();
  }
}
