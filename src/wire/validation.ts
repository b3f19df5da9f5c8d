import type { FastifySchemaCompiler } from 'fastify';
import type { TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { Value } from 'typebox/value';
import { PaddockError } from '../core/errors.ts';

/** What the validator says about one place in a value, as TypeBox reports it. */
interface Finding {
  readonly keyword: string;
  /** JSON pointer. */
  readonly instancePath: string;
  readonly params: object;
  readonly message?: string;
}

/**
 * Turns TypeBox schemas into fastify's validators. Paths, queries and headers are text, so there numbers and booleans are
 * converted first; bodies are taken as they are. The failure is a PaddockError that names the field and what is allowed.
 */
export const compileValidator: FastifySchemaCompiler<TSchema> = ({ schema, httpPart }) => {
  const validator = Compile(schema);
  const converts = httpPart !== 'body' && hasNonText(schema);
  return (input: unknown) => {
    const value: unknown = converts ? Value.Convert(schema, input) : input;
    if (validator.Check(value)) return { value };
    return { error: describeFindings(validator.Errors(value)) };
  };
};

/** Whether conversion could change anything; it costs more than all the rest. */
function hasNonText(schema: TSchema): boolean {
  const { properties } = schema as { properties?: Record<string, { type?: unknown }> };
  return Object.values(properties ?? {}).some((each) => each.type !== 'string');
}

/** One sentence about the first thing that is wrong: the field's path as a client writes it, and what is allowed. */
export function describeFindings(findings: readonly Finding[], root = ''): PaddockError {
  const finding = mostTelling(findings);
  if (finding === undefined) return new PaddockError('invalid_argument', 'The request is not valid.');
  const params = finding.params as Record<string, unknown>;
  const missing = finding.keyword === 'required' ? (params['requiredProperties'] as string[] | undefined)?.[0] : undefined;
  const path = joinPath(root, finding.instancePath, missing);
  const problem = finding.keyword === 'anyOf' ? `must be ${typesAllowedAt(findings, finding.instancePath)}` : rule(finding.keyword, params, finding.message);
  return new PaddockError('invalid_argument', `${path || 'The body'} ${problem}.`, path ? { field: path } : {});
}

/** Of a union, the validator lists what each member misses, then the union itself. */
function mostTelling(findings: readonly Finding[]): Finding | undefined {
  const union = findings.find((each) => each.keyword === 'anyOf');
  if (union === undefined) return findings[0];
  const first = findings.findIndex((each) => each.instancePath === union.instancePath || each.instancePath.startsWith(`${union.instancePath}/`));
  if (first > 0) return findings[0];
  // The value had the type of one member, which then misses something: that says more than "none of them fits".
  return findings.find((each) => each.keyword !== 'anyOf' && (each.keyword !== 'type' || each.instancePath !== union.instancePath)) ?? union;
}

function rule(keyword: string, params: Record<string, unknown>, message: string | undefined): string {
  switch (keyword) {
    case 'required':
      return 'is required';
    case 'type':
      return `must be ${typeWord(String(params['type']))}`;
    case 'enum':
      return `must be one of ${(params['allowedValues'] as unknown[]).join(', ')}`;
    case 'const':
      return `must be ${String(params['allowedValue'])}`;
    case 'minimum':
      return `must be at least ${String(params['limit'])}`;
    case 'maximum':
      return `must be at most ${String(params['limit'])}`;
    case 'minLength':
      return params['limit'] === 1 ? 'must not be empty' : `must have at least ${String(params['limit'])} characters`;
    case 'maxLength':
      return `must have at most ${String(params['limit'])} characters`;
    case 'minItems':
      return params['limit'] === 1 ? 'must not be empty' : `must have at least ${String(params['limit'])} items`;
    case 'maxItems':
      return `must have at most ${String(params['limit'])} items`;
    case 'pattern':
      return `must match ${String(params['pattern'])}`;
    default:
      return message ?? 'is not valid';
  }
}

function typeWord(type: string): string {
  const words: Record<string, string> = { integer: 'a whole number', number: 'a number', string: 'a string', boolean: 'true or false', object: 'an object', array: 'a list', null: 'null' };
  return words[type] ?? type;
}

function typesAllowedAt(findings: readonly Finding[], instancePath: string): string {
  const types = findings
    .filter((each) => each.keyword === 'type' && each.instancePath === instancePath)
    .map((each) => typeWord(String((each.params as Record<string, unknown>)['type'])));
  return [...new Set(types)].join(' or ');
}

/** `/files/0/path` as `files[0].path`. */
function joinPath(root: string, pointer: string, last: string | undefined): string {
  const steps = pointer.split('/').slice(1).map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'));
  if (last !== undefined) steps.push(last);
  let path = root;
  for (const step of steps) {
    if (/^\d+$/.test(step)) path += `[${step}]`;
    else path += path === '' ? step : `.${step}`;
  }
  return path;
}
