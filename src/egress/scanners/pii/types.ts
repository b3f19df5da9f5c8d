import type { PiiType } from '../../../core/guardrails/guardrails.ts';

export { piiTypes, type PiiType } from '../../../core/guardrails/guardrails.ts';

/** Where something was found in a text: characters from `start` up to, not including, `end`. */
export interface Hit {
  readonly type: PiiType;
  readonly start: number;
  readonly end: number;
}

/** How often something was found; what it was is not said. */
export interface Finding {
  readonly type: PiiType;
  readonly count: number;
}

/** No hit is longer than this many characters: what a stream has to hold back to see one whole. */
export const longestHit = 8192;
/** A finder looks no further than this past the end of a hit, and before its beginning. */
export const farthestLook = 256;
