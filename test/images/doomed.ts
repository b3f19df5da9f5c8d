import { applyLayer } from '../../src/host/images/unpacker.ts';
import { file, layerOf, unpacker } from '../harness/images.ts';

/** Unpacks a layer that never ends into the directory it is given, until somebody kills it. */
const endless = async function* (): AsyncGenerator<Uint8Array> {
  yield layerOf(file('a')).subarray(0, 512);
  await new Promise((resolve) => setTimeout(resolve, 600_000));
};
await applyLayer(unpacker, process.argv[2]!, endless(), { maxBytes: 1e9, bytes: 0, entries: 1000, stream: 1e9 }, 'layer 1 of 1', AbortSignal.timeout(600_000));
