import { parentPort } from 'node:worker_threads';
import { parseTransformations, type Transformation, type TransformationRule } from '../../core/guardrails/transformations.ts';
import type { PartFilter } from './multipart.ts';
import { textFilter } from './text-filter.ts';
import { BodyTransformer, TransformationRefused } from './transformations.ts';

/*
 * Applies transformations in a thread of its own, because a pattern of a policy may take a while. Bodies are told apart by number; each message
 * is answered with one that has its number `n`.
 */

export type Order = { readonly n: number; readonly body: number } & (
  | { readonly op: 'open'; readonly contentType: string; readonly rules: readonly TransformationRule[] }
  | { readonly op: 'write'; readonly bytes: Uint8Array }
  | { readonly op: 'end' | 'close' }
);

export interface Outcome {
  readonly n: number;
  readonly bytes: Uint8Array;
  /** How often something was replaced in the body so far. */
  readonly count: number;
  /** Texts that could not be read, since the last time. */
  readonly unreadable: readonly string[];
  readonly binary: boolean;
  readonly refused?: { readonly code: string; readonly reason: string };
}

interface Body {
  readonly filter: PartFilter;
  readonly transformers: BodyTransformer[];
  unreadable: string[];
  binary: boolean;
}

const mostRemembered = 64;
const bodies = new Map<number, Body>();
const parsed = new Map<string, readonly Transformation[]>();

parentPort!.on('message', (order: Order) => {
  const nothing = { n: order.n, bytes: new Uint8Array(), count: 0, unreadable: [], binary: false };
  try {
    parentPort!.postMessage({ ...nothing, ...carryOut(order) } satisfies Outcome);
  } catch (reason) {
    bodies.delete(order.body);
    const code = reason instanceof TransformationRefused ? reason.code : 'not_scanned';
    parentPort!.postMessage({ ...nothing, refused: { code, reason: (reason as Error).message } } satisfies Outcome);
  }
});

function carryOut(order: Order): Partial<Outcome> {
  if (order.op === 'open') {
    const body: Body = { transformers: [], unreadable: [], binary: false, filter: textFilter(order.contentType, { make, unreadable: (why) => void body.unreadable.push(why), binary: () => (body.binary = true) }) };
    function make(): BodyTransformer {
      const transformer = new BodyTransformer(rulesOf(order as Order & { op: 'open' }));
      body.transformers.push(transformer);
      return transformer;
    }
    bodies.set(order.body, body);
    return {};
  }
  const body = bodies.get(order.body);
  if (order.op === 'close') {
    bodies.delete(order.body);
    return {};
  }
  // Its thread was ended, or it was refused already: a part of it must not pass for the whole.
  if (body === undefined) throw new Error('its beginning was lost');
  const bytes = order.op === 'write' ? body.filter.write(Buffer.from(order.bytes)) : body.filter.end();
  const { unreadable, binary } = body;
  body.unreadable = [];
  if (order.op === 'end') bodies.delete(order.body);
  return { bytes, unreadable, binary, count: body.transformers.reduce((sum, { count }) => sum + count, 0) };
}

function rulesOf({ rules }: { readonly rules: readonly TransformationRule[] }): readonly Transformation[] {
  const key = JSON.stringify(rules);
  let found = parsed.get(key);
  if (found === undefined) {
    found = parseTransformations(rules);
    if (parsed.size >= mostRemembered) parsed.clear();
    parsed.set(key, found);
  }
  return found;
}
