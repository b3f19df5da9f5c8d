import { badRequest } from './errors.ts';

type StringMap = Readonly<Record<string, string>>;

const bytes = (text: string): number => Buffer.byteLength(text, 'utf8');
const shown = (key: string): string => JSON.stringify(key.length > 80 ? `${key.slice(0, 80)}…` : key);

const metadataLimits = { keys: 64, keyBytes: 256, valueBytes: 2048, totalBytes: 16_384 } as const;
const envLimits = { keys: 64, keyBytes: 256, valueBytes: 8192, totalBytes: 65_536 } as const;
const mostSecrets = 32;
const reserved = /^(superserve\.|_superserve)/i;
const environmentName = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** Contract, section 4.9: at create, in updates and in filters alike. */
export function assertMetadata(metadata: StringMap, field = 'metadata'): void {
  assertMap(field, metadata, metadataLimits);
  for (const key of Object.keys(metadata)) {
    if (reserved.test(key)) throw badRequest(field, `key ${shown(key)} is reserved: keys must not start with superserve. or _superserve`);
  }
}

/** Contract, section 4.2. */
export function assertEnvVars(envVars: StringMap): void {
  assertMap('env_vars', envVars, envLimits);
  for (const [key, value] of Object.entries(envVars)) {
    if (/[=\0]/.test(key)) throw badRequest('env_vars', `key ${shown(key)} must not contain = or a NUL byte`);
    if (value.includes('\0')) throw badRequest('env_vars', `value of ${shown(key)} must not contain a NUL byte`);
  }
}

/** @throws PaddockError `invalid_argument` for a name that no environment variable can have, or one that is an `env_vars` key. */
export function assertSecretBindings(secrets: StringMap, envVars: StringMap): void {
  const keys = Object.keys(secrets);
  if (keys.length > mostSecrets) throw badRequest('secrets', `has ${keys.length} entries; the limit is ${mostSecrets}`);
  const odd = keys.find((key) => !environmentName.test(key));
  if (odd !== undefined) throw badRequest('secrets', `key ${shown(odd)} must match ${environmentName.source}`);
  const nameless = keys.find((key) => secrets[key] === '');
  if (nameless !== undefined) throw badRequest('secrets', `value of ${shown(nameless)} must name a secret`);
  const twice = keys.find((key) => Object.hasOwn(envVars, key));
  if (twice !== undefined) throw badRequest('secrets', `key ${shown(twice)} is also in env_vars; a variable has one source`);
}

export function assertName(name: string | undefined, field = 'name'): string {
  if (name === undefined || name === '') throw badRequest(field, 'is required: 1 to 64 bytes');
  if (bytes(name) > 64) throw badRequest(field, `has ${bytes(name)} bytes; the limit is 64`);
  if (name.includes('\0')) throw badRequest(field, 'must not contain a NUL byte');
  return name;
}

export function assertTimeoutSeconds(seconds: number): void {
  assertRange('timeout_seconds', seconds, 1, 604_800);
}

export function assertAutoDeleteSeconds(seconds: number): void {
  assertRange('auto_delete_seconds', seconds, 0, 2_592_000);
}

export function assertRange(field: string, value: number, least: number, most: number): void {
  if (value < least || value > most) throw badRequest(field, `must be from ${least} to ${most}, but is ${value}`);
}

function assertMap(field: string, map: StringMap, limits: { readonly keys: number; readonly keyBytes: number; readonly valueBytes: number; readonly totalBytes: number }): void {
  const entries = Object.entries(map);
  if (entries.length > limits.keys) throw badRequest(field, `has ${entries.length} keys; the limit is ${limits.keys}`);
  let total = 0;
  for (const [key, value] of entries) {
    const [keyBytes, valueBytes] = [bytes(key), bytes(value)];
    if (keyBytes === 0) throw badRequest(field, 'has an empty key; keys have 1 to 256 bytes');
    if (keyBytes > limits.keyBytes) throw badRequest(field, `key ${shown(key)} has ${keyBytes} bytes; the limit is ${limits.keyBytes}`);
    if (valueBytes > limits.valueBytes) throw badRequest(field, `value of ${shown(key)} has ${valueBytes} bytes; the limit is ${limits.valueBytes}`);
    total += keyBytes + valueBytes;
  }
  if (total > limits.totalBytes) throw badRequest(field, `takes ${total} bytes, keys and values together; the limit is ${limits.totalBytes}`);
}
