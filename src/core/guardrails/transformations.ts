import { RE2JS } from 're2js';
import { shapeOf } from './pattern-shape.ts';

export type Direction = 'outbound' | 'inbound' | 'both';

export interface TransformationRule {
  readonly match: string;
  readonly replace: string;
  readonly direction: Direction;
}

/** A rule that was read and can be applied. */
export interface Transformation extends TransformationRule {
  readonly pattern: RE2JS;
  /** Characters of its longest match when it may be applied to a body in pieces; null when it needs the whole. */
  readonly window: number | null;
}

const longestPattern = 1000;
const longestReplacement = 10_000;
const mostRules = 100;
/** Instructions of a compiled pattern, as for the patterns of network rules. */
const heaviestPattern = 2000;
const heaviestRules = 20_000;
/** A match that may be longer needs the whole body. */
const longestWindow = 4096;
const directions: ReadonlyMap<string, Direction> = new Map([['outbound', 'outbound'], ['out', 'outbound'], ['inbound', 'inbound'], ['in', 'inbound'], ['both', 'both']]);

/** What is wrong with a rule: the field below the list, and what to do. */
export class InvalidTransformation extends Error {
  readonly field: string;

  constructor(field: string, what: string) {
    super(what);
    this.name = 'InvalidTransformation';
    this.field = field;
  }
}

/**
 * Reads the rules of a policy.
 *
 * @throws InvalidTransformation naming the rule and the field (`[2].match`).
 */
export function parseTransformations(rules: readonly unknown[]): readonly Transformation[] {
  if (rules.length > mostRules) throw new InvalidTransformation('', `has ${rules.length} rules; the limit is ${mostRules}`);
  let left = heaviestRules;
  return rules.map((rule, i) => {
    const parsed = parseTransformation(rule, `[${i}]`);
    left -= parsed.pattern.programSize();
    if (left < 0) throw new InvalidTransformation(`[${i}].match`, 'makes the patterns of all rules together too heavy; use fewer or simpler ones');
    return parsed;
  });
}

function parseTransformation(rule: unknown, path: string): Transformation {
  if (typeof rule !== 'object' || rule === null || Array.isArray(rule)) throw new InvalidTransformation(path, 'must be an object with match, replace and direction');
  const { match, replace, direction = 'outbound' } = rule as Record<string, unknown>;
  if (typeof match !== 'string' || match === '') throw new InvalidTransformation(`${path}.match`, 'must be a regular expression, as text');
  if (match.length > longestPattern) throw new InvalidTransformation(`${path}.match`, `has ${match.length} characters; the limit is ${longestPattern}`);
  if (typeof replace !== 'string') throw new InvalidTransformation(`${path}.replace`, 'must be a text');
  if (replace.length > longestReplacement) throw new InvalidTransformation(`${path}.replace`, `has ${replace.length} characters; the limit is ${longestReplacement}`);
  const way = typeof direction === 'string' ? directions.get(direction) : undefined;
  if (way === undefined) throw new InvalidTransformation(`${path}.direction`, 'must be outbound, inbound or both');
  const pattern = compiled(match, `${path}.match`);
  const groups = pattern.groupCount();
  for (const [, braced, bare] of replace.replaceAll('$$', '').matchAll(/\$(?:\{(\d+)\}|(\d+))/g)) {
    const number = Number(braced ?? bare);
    if (number > groups) throw new InvalidTransformation(`${path}.replace`, `names group ${number}, and match has ${groups}; write $$ for a dollar sign`);
  }
  const { longest, nested, anchored } = shapeOf(match);
  if (nested) throw new InvalidTransformation(`${path}.match`, 'repeats what is repeated already, such as (a+)+; write it without a repetition within a repetition');
  if (pattern.matches('')) throw new InvalidTransformation(`${path}.match`, 'matches the empty text, which is everywhere; make it match at least one character');
  return { match, replace, direction: way, pattern, window: anchored || longest > longestWindow ? null : longest };
}

function compiled(match: string, field: string): RE2JS {
  let pattern: RE2JS;
  try {
    pattern = RE2JS.compile(match);
  } catch (cause) {
    const hint = /\(\?<?[=!]/.test(match) ? ' (look-ahead and look-behind are not available)' : /\\[1-9]/.test(match) ? ' (references back to a group are not available)' : '';
    throw new InvalidTransformation(field, `is not a valid regular expression${hint}: ${(cause as Error).message.slice(0, 200)}`);
  }
  if (pattern.programSize() > heaviestPattern) throw new InvalidTransformation(field, `is too heavy (${pattern.programSize()} steps, the limit is ${heaviestPattern}); use smaller counts of repetition`);
  return pattern;
}
