import { PaddockError } from './errors.ts';
import type { Lap } from './host.ts';
import type { Born } from './idempotency.ts';
import { assertEnforceable, type PolicyRequest } from './policy.ts';
import type { Declared, Lifecycle, WireName } from './sandbox.ts';
import type { BindingRequest } from './secrets/bindings.ts';
import type { CoreSettings } from './settings.ts';
import type { Template, TemplateCatalog } from './template.ts';

export interface CreateSandbox {
  readonly wire: WireName;
  /** What its owner calls it; need not be unique. */
  readonly name?: string;
  /** Empty means `base`. */
  readonly templateName: string;
  /** 0 means no deadline. */
  readonly timeoutSeconds: number;
  readonly metadata: Readonly<Record<string, string>>;
  readonly envs: Readonly<Record<string, string>>;
  readonly lifecycle: Lifecycle;
  /** What was asked for, to be echoed. */
  readonly declared: Declared;
  /** The same, normalised, to be checked and enforced. */
  readonly policy?: PolicyRequest;
  /** Secrets that it may use; `field` names where they stand in the request. */
  readonly secrets?: SecretsInput;
  readonly defaultUser: string;
  /** Hears of the stages of the create, for whoever measures them. */
  readonly lap?: Lap;
  readonly born?: Born | undefined;
}

/** Secrets as a request names them. */
export interface SecretsInput {
  readonly field: string;
  readonly bindings: readonly BindingRequest[];
}

/** Throws `invalid_argument` with the field and the limit for whatever a create may not ask for. */
export function assertCreatable(input: CreateSandbox, settings: CoreSettings): void {
  assertTimeout('timeout', input.timeoutSeconds, settings);
  assertMetadata(input.metadata, settings);
  assertEnvs('envs', input.envs, settings.maxEnvBytes);
  const declaredBytes = byteLength(JSON.stringify(input.declared));
  if (declaredBytes > settings.maxDeclaredBytes) {
    throw invalid('security', `and network take ${declaredBytes} bytes together; the limit is ${settings.maxDeclaredBytes}`);
  }
  assertLifecycle(input.lifecycle, settings);
  assertEnforceable(input.policy ?? {});
}

/** The template asked for, and the name the sandbox will carry. Throws `not_found` with the names there are. */
export function chooseTemplate(requested: string, catalog: TemplateCatalog, settings: CoreSettings): { template: Template; id: string; name: string } {
  const name = requested === '' ? 'base' : requested;
  const template = catalog.find(name) ?? catalog.list().find((candidate) => candidate.id === name);
  if (template !== undefined) return { template, id: template.id, name: template.name };
  const base = settings.unknownTemplate === 'base' && name.length <= 128 ? catalog.find('base') : undefined;
  if (base !== undefined) return { template: base, id: `tpl-${name}`, name };
  if (catalog.offered?.().includes(name) === true) {
    catalog.request?.(name);
    throw new PaddockError('template_not_ready', `the template ${name} is built when it is asked for first; that has begun and takes some minutes`, { field: 'template', retryAfterSeconds: 30 });
  }
  if (catalog.pending?.().includes(name) === true) {
    throw new PaddockError('template_not_ready', `the template ${name} is being built; try again in a minute`, { field: 'template', retryAfterSeconds: 10 });
  }
  const known = [...catalog.list().map((candidate) => candidate.name), ...(catalog.offered?.() ?? [])].sort().join(', ');
  throw new PaddockError('not_found', `there is no template ${JSON.stringify(name.slice(0, 128))}; there is: ${known === '' ? 'none yet' : known}`, { field: 'template' });
}

/** The two limits of a life beyond its timeout; whole seconds, null for none. */
export function assertLifecycle(lifecycle: Pick<Lifecycle, 'maxLifetimeSeconds' | 'autoDeleteSeconds'>, settings: CoreSettings): void {
  const { maxLifetimeSeconds, autoDeleteSeconds } = lifecycle;
  if (maxLifetimeSeconds !== null) {
    if (!Number.isSafeInteger(maxLifetimeSeconds) || maxLifetimeSeconds < 1) throw invalid('lifecycle.max_lifetime_seconds', `must be whole seconds from 1, or null for none, not ${maxLifetimeSeconds}`);
    assertAtMost('lifecycle.max_lifetime_seconds', maxLifetimeSeconds, settings);
  }
  if (autoDeleteSeconds === null) return;
  if (!Number.isSafeInteger(autoDeleteSeconds) || autoDeleteSeconds < 0) throw invalid('lifecycle.auto_delete_seconds', `must be whole seconds, or null for never, not ${autoDeleteSeconds}`);
  assertAtMost('lifecycle.auto_delete_seconds', autoDeleteSeconds, settings);
}

/** Whole seconds, 0 for none, up to the limit. */
export function assertTimeout(field: string, seconds: number, settings: CoreSettings): void {
  if (!Number.isSafeInteger(seconds) || seconds < 0) throw invalid(field, `must be whole seconds, 0 for none, not ${seconds}`);
  assertAtMost(field, seconds, settings);
}

/** Like a sandbox's timeout, but parts of a second are fine. */
export function assertProcessTimeout(field: string, seconds: number, settings: CoreSettings): void {
  if (!Number.isFinite(seconds) || seconds < 0) throw invalid(field, `must be seconds, 0 for none, not ${seconds}`);
  assertAtMost(field, seconds, settings);
}

/** A hundred years: beyond it dates end, and a server without a limit of its own needs none longer. */
const longestTimeoutSeconds = 100 * 365 * 86_400;

function assertAtMost(field: string, seconds: number, settings: CoreSettings): void {
  const limit = Math.min(settings.maxTimeoutSeconds, longestTimeoutSeconds);
  if (seconds > limit) throw invalid(field, `is ${seconds} seconds; the limit is ${limit}`);
}

/** Whatever the kernel can carry: shells pass on what they cannot assign. */
const envName = /^[^=\0]+$/;

export function assertEnvs(field: string, envs: Readonly<Record<string, string>>, maxBytes: number): void {
  let bytes = 0;
  for (const [name, value] of Object.entries(envs)) {
    if (!envName.test(name)) {
      throw invalid(field, `has the name ${JSON.stringify(name.slice(0, 80))}; names are not empty and have no = and no NUL character`);
    }
    if (value.includes('\0')) throw invalid(`${field}.${name.slice(0, 80)}`, 'holds a NUL character, which no environment can');
    bytes += byteLength(name) + byteLength(value);
  }
  if (bytes > maxBytes) throw invalid(field, `take ${bytes} bytes; the limit is ${maxBytes}. Write large values to a file instead`);
}

export function assertMetadata(metadata: Readonly<Record<string, string>>, settings: CoreSettings): void {
  const entries = Object.entries(metadata);
  if (entries.length > settings.maxMetadataEntries) throw invalid('metadata', `has ${entries.length} entries; the limit is ${settings.maxMetadataEntries}`);
  let bytes = 0;
  for (const [key, value] of entries) {
    if (key === '' || key.includes('\0')) throw invalid('metadata', 'has a key that is empty or holds a NUL character');
    if (value.includes('\0')) throw invalid(`metadata.${key.slice(0, 80)}`, 'holds a NUL character');
    bytes += byteLength(key) + byteLength(value);
  }
  if (bytes > settings.maxMetadataBytes) throw invalid('metadata', `takes ${bytes} bytes; the limit is ${settings.maxMetadataBytes}`);
}

function byteLength(text: string): number {
  return Buffer.byteLength(text, 'utf8');
}

function invalid(field: string, what: string): PaddockError {
  return new PaddockError('invalid_argument', `${field} ${what}`, { field });
}
