import { createHash } from 'node:crypto';
import { PaddockError } from '../errors.ts';

/** One thing a build does, in order. A `word` is a word of a Dockerfile: its quotes and `$NAME`s are resolved when the environment so far is known. */
export type Step =
  | { readonly kind: 'run'; readonly command: string }
  /** `same` belongs to the instruction of the step before: its value sees nothing of that one's. */
  | { readonly kind: 'env'; readonly key: string; readonly value: string; readonly word?: true; readonly same?: true }
  /** A variable of the build only, which a variable of the environment with the same name covers. */
  | { readonly kind: 'arg'; readonly key: string; readonly value: string; readonly word?: true }
  | { readonly kind: 'workdir'; readonly path: string; readonly word?: true }
  /** Made when there is none of that name; a number is taken as it stands. */
  | { readonly kind: 'user'; readonly name: string; readonly sudo: boolean; readonly word?: true };

/** What a template is to be. Sizes as in `Limits`; null is left to the server. */
export interface TemplateSpec {
  /** The name of a template, or what an image is called. */
  readonly from: string;
  readonly steps: readonly Step[];
  readonly startCommand: string | null;
  readonly readyCommand: string | null;
  readonly vcpus: number;
  readonly memoryMb: number;
  readonly diskMb: number;
  /** Who runs the start command when no step says. */
  readonly defaultUser: 'root' | 'user';
  /** Told at the beginning of the log of a build: what of a Dockerfile has no effect here. */
  readonly notes: readonly string[];
}

/** What a request says, before it is checked. */
export interface SpecInput {
  readonly from: string;
  readonly steps?: readonly Step[];
  readonly startCommand?: string;
  readonly readyCommand?: string;
  readonly vcpus?: number;
  readonly memoryMb?: number;
  readonly diskMb?: number;
  readonly defaultUser?: 'root' | 'user';
  readonly notes?: readonly string[];
}

/** Bounds of what a template may have. */
export interface SpecLimits {
  readonly maxVcpus: number;
  readonly maxMemoryMb: number;
  readonly maxDiskMb: number;
}

/** What each wire calls the fields, for errors. */
export interface SpecFields {
  readonly from: string;
  readonly startCommand: string;
  readonly readyCommand: string;
  readonly vcpus: string;
  readonly memoryMb: string;
  readonly diskMb: string;
  readonly step: (index: number) => string;
}

export const plainFields: SpecFields = Object.freeze({
  from: 'from', startCommand: 'start_cmd', readyCommand: 'ready_cmd', vcpus: 'vcpu', memoryMb: 'memory_mib', diskMb: 'disk_mib', step: (index: number) => `steps[${index}]`,
});

const mostSteps = 100;
const longestCommand = 64 * 1024;
const longestFrom = 512;
const longestPath = 4095;
const mostEnvBytes = 64 * 1024;
const leastMemoryMb = 128;
const leastDiskMb = 128;
export const defaultSizes = Object.freeze({ vcpus: 1, memoryMb: 1024, diskMb: 4096 });

const nameRule = /^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$/;
const uuidRule = /^(tpl-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const userRule = /^([a-z_][a-z0-9_-]{0,30}|[0-9]{1,9})$/;
const envRule = /^[A-Za-z_][A-Za-z0-9_]{0,255}$/;

/** Throws `invalid_argument` naming the field, as the caller calls it. */
export function assertTemplateName(name: string, field = 'name'): void {
  if (name.length < 1 || name.length > 128 || !nameRule.test(name)) {
    throw invalid(field, 'must have 1 to 128 of the characters A-Z a-z 0-9 . _ / -, and begin and end with a letter or digit');
  }
  if (name.includes('//') || name.split('/').some((part) => part === '.' || part === '..')) throw invalid(field, 'must not have empty parts, . or .. between slashes');
  if (/^superserve\//i.test(name)) throw invalid(field, 'must not begin with superserve/: those are built in');
  if (uuidRule.test(name)) throw invalid(field, 'must not look like an id');
}

/** A checked spec. Throws `invalid_argument` with the field and the limit. */
export function parseSpec(input: SpecInput, limits: SpecLimits, fields: SpecFields = plainFields): TemplateSpec {
  const { vcpus = defaultSizes.vcpus, memoryMb = defaultSizes.memoryMb, diskMb = defaultSizes.diskMb, steps = [] } = input;
  assertFrom(fields.from, input.from);
  assertSize(fields.vcpus, vcpus, 1, limits.maxVcpus);
  assertSize(fields.memoryMb, memoryMb, leastMemoryMb, limits.maxMemoryMb);
  assertSize(fields.diskMb, diskMb, leastDiskMb, limits.maxDiskMb);
  if (steps.length > mostSteps) throw invalid(fields.step(mostSteps), `is one too many: there are ${steps.length} steps, and the limit is ${mostSteps}`);
  let envBytes = 0;
  for (const [index, step] of steps.entries()) {
    assertStep(fields.step(index), step);
    if (step.kind === 'env' || step.kind === 'arg') envBytes += Buffer.byteLength(step.key) + Buffer.byteLength(step.value);
  }
  if (envBytes > mostEnvBytes) throw invalid(fields.step(0), `and the other steps set ${envBytes} bytes of environment; the limit is ${mostEnvBytes}`);
  const startCommand = command(fields.startCommand, input.startCommand);
  const readyCommand = command(fields.readyCommand, input.readyCommand);
  return Object.freeze({ from: input.from, steps: Object.freeze(steps.map((step) => Object.freeze({ ...step }))), startCommand, readyCommand, vcpus, memoryMb, diskMb, defaultUser: input.defaultUser ?? 'root', notes: Object.freeze([...(input.notes ?? [])]) });
}

/** SHA-256, hex, of the canonical JSON of a spec: equal specs have equal ones, whatever they came as. */
export function specHash({ from, steps, startCommand, readyCommand, vcpus, memoryMb, diskMb, defaultUser }: TemplateSpec): string {
  return createHash('sha256').update(canonicalJson({ from, steps, startCommand, readyCommand, vcpus, memoryMb, diskMb, defaultUser })).digest('hex');
}

/** JSON with sorted keys and without what is undefined. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).filter(([, each]) => each !== undefined);
  return `{${entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, each]) => `${JSON.stringify(key)}:${canonicalJson(each)}`).join(',')}}`;
}

function assertFrom(field: string, from: string): void {
  if (from === '') throw invalid(field, 'must name a template or an image');
  if (from.length > longestFrom) throw invalid(field, `has ${from.length} characters; the limit is ${longestFrom}`);
  if (/[\s\p{Cc}]/u.test(from)) throw invalid(field, 'must not have spaces or control characters');
}

function assertSize(field: string, value: number, least: number, most: number): void {
  if (!Number.isSafeInteger(value) || value < least || value > most) throw invalid(field, `must be a whole number from ${least} to ${most}, not ${value}`);
}

function assertStep(field: string, step: Step): void {
  switch (step.kind) {
    case 'run':
      command(`${field}.run`, step.command);
      return;
    case 'env':
    case 'arg':
      if (!envRule.test(step.key)) throw invalid(`${field}.env.key`, `must be a name of letters, digits and _ with at most 256 characters, not ${shown(step.key)}`);
      assertText(`${field}.env.value`, step.value, mostEnvBytes);
      return;
    case 'workdir':
      if (step.path === '') throw invalid(`${field}.workdir`, 'must not be empty');
      assertText(`${field}.workdir`, step.path, longestPath);
      return;
    case 'user':
      if (step.word !== true) assertUser(`${field}.user.name`, step.name);
      else assertText(`${field}.user.name`, step.name, 1024);
  }
}

/** Throws `invalid_argument` for what cannot be the name or number of a user. */
export function assertUser(field: string, name: string): void {
  if (!userRule.test(name)) throw invalid(field, `must match ^[a-z_][a-z0-9_-]{0,30}$ or be a number, not ${shown(name)}`);
}

function command(field: string, text: string | undefined): string | null {
  if (text === undefined) return null;
  if (text.trim() === '') throw invalid(field, 'must not be empty');
  assertText(field, text, longestCommand);
  return text;
}

function assertText(field: string, text: string, most: number): void {
  if (text.includes('\0')) throw invalid(field, 'holds a NUL character');
  const bytes = Buffer.byteLength(text);
  if (bytes > most) throw invalid(field, `takes ${bytes} bytes; the limit is ${most}`);
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, 80));
}

function invalid(field: string, what: string): PaddockError {
  return new PaddockError('invalid_argument', `${field} ${what}`, { field });
}
