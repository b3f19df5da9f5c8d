import type { Transformation } from '../../core/guardrails/transformations.ts';
import { AllowanceSpent, MeteredText } from './metered-text.ts';

/** Why a body is not transformed but refused. */
export class TransformationRefused extends Error {
  readonly code: 'transformation_too_large' | 'transformation_too_slow' | 'body_too_large';

  constructor(code: TransformationRefused['code'], what: string) {
    super(what);
    this.name = 'TransformationRefused';
    this.code = code;
  }
}

export interface TransformLimits {
  /** Bytes of a body that a rule needs as a whole. */
  readonly wholeBody: number;
  /** A body may grow by this factor, or up to `freeGrowth` bytes whatever it was. */
  readonly growth: number;
  readonly freeGrowth: number;
  /** Steps of patterns (characters read × instructions) for a body, beside those that its length gives it. */
  readonly steps: number;
}

export const defaultTransformLimits: TransformLimits = Object.freeze({ wholeBody: 4 << 20, growth: 8, freeGrowth: 1 << 20, steps: 400_000_000 });
/** A pattern of the usual size reads each character a few times. */
const stepsPerByte = 200;

/** Pieces are collected to about this many characters, so that what a body costs does not depend on how it is cut. */
const pieceSize = 32 << 10;

/**
 * Applies rules, one after the other, to a body that comes in pieces. Bytes that are not UTF-8 stay what they are; a binary body is not to be
 * given here (see `isTransformable`). Rules whose matches are bounded work on pieces; with any other the whole body waits for its end.
 */
export class BodyTransformer {
  readonly #rules: readonly Transformation[];
  readonly #limits: TransformLimits;
  readonly #whole: boolean;
  readonly #overlap: number;
  #waiting: Buffer[] = [];
  #size = 0;
  #in = 0;
  #out = 0;
  #steps = 0;
  #count = 0;

  constructor(rules: readonly Transformation[], limits: TransformLimits = defaultTransformLimits) {
    this.#rules = rules;
    this.#limits = limits;
    // Rules see what the ones before them made, so that only a single rule can go by its own window.
    this.#whole = rules.length !== 1 || rules[0]!.window === null;
    this.#overlap = this.#whole ? 0 : rules[0]!.window! * 4;
  }

  /** How often something was replaced. */
  get count(): number {
    return this.#count;
  }

  /** @throws TransformationRefused */
  write(chunk: Buffer): Buffer {
    this.#in += chunk.length;
    this.#waiting.push(Buffer.from(chunk));
    this.#size += chunk.length;
    if (this.#whole) {
      if (this.#size > this.#limits.wholeBody) throw new TransformationRefused('body_too_large', `the body has more than ${this.#limits.wholeBody} bytes, and a transformation needs it as a whole; make its pattern bounded (no *, + or anchors)`);
      return Buffer.alloc(0);
    }
    return this.#size < pieceSize + this.#overlap ? Buffer.alloc(0) : this.#transform(false);
  }

  /** @throws TransformationRefused */
  end(): Buffer {
    return this.#size === 0 ? Buffer.alloc(0) : this.#transform(true);
  }

  #transform(last: boolean): Buffer {
    const all = Buffer.concat(this.#waiting);
    const bytes = last ? all : all.subarray(0, wholeCharacters(all));
    let text = bytes.toString('utf8');
    // What is no UTF-8 would be changed by being read as such.
    const encoding = Buffer.byteLength(text) !== bytes.length || text.includes('\ufffd') ? 'latin1' : 'utf8';
    if (encoding === 'latin1') text = bytes.toString('latin1');
    let out: string;
    if (last) {
      out = this.#rules.reduce((text, rule) => this.#replaced(text, rule).out, text);
      this.#waiting = [];
      this.#size = 0;
    } else {
      const border = bytes.toString(encoding, 0, wholeCharacters(bytes.subarray(0, bytes.length - this.#overlap))).length;
      const { out: done, rest } = this.#replaced(text, this.#rules[0]!, border);
      out = done;
      const left = Buffer.concat([Buffer.from(text.slice(rest), encoding), all.subarray(bytes.length)]);
      this.#waiting = [left];
      this.#size = left.length;
    }
    const result = Buffer.from(out, encoding);
    this.#out += result.length;
    this.#assertBounded(this.#out);
    return result;
  }

  /** What becomes of the text up to a border, or to the end of a match that begins before it; and where the rest begins. */
  #replaced(text: string, { pattern, replace }: Transformation, border = text.length): { out: string; rest: number } {
    const out: string[] = [];
    let size = 0;
    let from = 0;
    const weight = Math.max(16, pattern.programSize());
    const most = this.#limits.steps + this.#in * stepsPerByte - this.#steps;
    const allowance = { left: Math.max(0, Math.floor(most / weight)) };
    const before = allowance.left;
    const matcher = pattern.matcher(new MeteredText(text, allowance) as never);
    try {
      while (matcher.find() && matcher.start() < border) {
        if (matcher.end() === matcher.start()) continue;
        const made = replace.replaceAll(/\$(?:\{(\d+)\}|(\d+)|\$)/g, (all, braced?: string, bare?: string) => (all === '$$' ? '$' : (matcher.group(Number(braced ?? bare)) ?? '')));
        out.push(text.slice(from, matcher.start()), made);
        size += matcher.start() - from + made.length;
        // Before it is put together: a text of gigabytes must not come into being.
        this.#assertBounded(this.#out + size);
        from = matcher.end();
        this.#count++;
      }
    } catch (reason) {
      if (reason instanceof AllowanceSpent) throw new TransformationRefused('transformation_too_slow', 'a transformation takes too long on this body; make its pattern shorter or bounded (no *, + or .* over everything)');
      throw reason;
    }
    this.#steps += (before - allowance.left) * weight;
    const rest = Math.max(from, border);
    out.push(text.slice(from, rest));
    return { out: out.join(''), rest };
  }

  #assertBounded(size: number): void {
    const most = Math.max(this.#limits.freeGrowth, this.#in * this.#limits.growth);
    if (size > most) throw new TransformationRefused('transformation_too_large', `a transformation makes ${this.#in} bytes grow beyond ${most}; make its replacement shorter or its pattern rarer`);
  }
}

/** Bytes without a character at the end that is cut in two. */
function wholeCharacters(bytes: Buffer): number {
  let start = bytes.length - 1;
  while (start >= 0 && start > bytes.length - 4 && (bytes[start]! & 0xc0) === 0x80) start--;
  const first = bytes[start] ?? 0;
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 1;
  return start + length > bytes.length ? start : bytes.length;
}

/** Whether a body is text by its type: what is not stays untouched. A body without a type is text when its beginning is. */
export function isTransformable(contentType: string, beginning: Buffer): boolean {
  const type = contentType.split(';', 1)[0]!.trim().toLowerCase();
  if (type === '' || type === 'application/octet-stream') return !beginning.subarray(0, 4096).includes(0);
  return /^text\/|^application\/(?:[\w.-]+\+)?(?:json|xml|javascript|ecmascript|x-www-form-urlencoded|graphql|yaml|x-yaml|toml|sql|x-ndjson|ndjson|jsonl|x-sh|jwt)$|\+(?:json|xml|yaml)$|^message\//.test(type);
}
