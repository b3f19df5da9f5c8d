import type { Readable } from 'node:stream';
import type { BodyFilter } from '../pipeline/stage.ts';
import type { BodySink } from './front.ts';

/**
 * Passes a body on, through the filters in their order, as fast as the sink takes it.
 *
 * @param count is told the size of every piece as it came.
 * @throws What a filter throws, or Error when either side ends early.
 */
export async function passBody(source: Readable, filters: readonly BodyFilter[], sink: BodySink, count: (size: number) => void): Promise<void> {
  for await (const chunk of source.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    count(chunk.length);
    let passed = chunk;
    for (const filter of filters) {
      const next = filter.push(passed);
      passed = Buffer.isBuffer(next) ? next : await next;
    }
    if (passed.length > 0 && !sink.write(passed)) await sink.drained();
  }
  const rest = await restOf(filters);
  if (rest.length > 0 && !sink.write(rest)) await sink.drained();
}

/** The whole of a body that is known to be small. */
export async function gatherBody(source: Readable, filters: readonly BodyFilter[], count: (size: number) => void): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const sink: BodySink = {
    write: (chunk) => {
      chunks.push(chunk);
      return true;
    },
    drained: () => Promise.resolve(),
    end: () => {},
  };
  await passBody(source, filters, sink, count);
  return Buffer.concat(chunks);
}

/** What the filters have held back; each gets what the ones before it gave up last. */
async function restOf(filters: readonly BodyFilter[]): Promise<Buffer> {
  let rest: Buffer = Buffer.alloc(0);
  for (const filter of filters) {
    const pushed = rest.length > 0 ? await filter.push(rest) : rest;
    rest = Buffer.concat([pushed, await filter.end()]);
  }
  return rest;
}
