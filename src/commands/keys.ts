import type { Config } from '../config.ts';
import { Access } from '../core/access.ts';
import type { ApiKey, KeyScope } from '../core/store.ts';
import { systemClock } from '../core/clock.ts';
import { ensureDataDir, OperatorError } from './data-dir.ts';
import { openDataStore } from './services.ts';

/** Lists, makes and revokes API keys, whether a server runs or not. Resolves to the exit code. */
export async function keys(config: Config, args: readonly string[]): Promise<number> {
  const { words, scope, expiresAt } = parseOptions(args);
  const [action, subject, ...rest] = words;
  if (rest.length > 0 || (action !== 'create' && words.length !== args.length) || !['list', 'create', 'revoke'].includes(action ?? '') || (action === 'list') !== (subject === undefined)) {
    throw new OperatorError('Usage: paddock keys list | paddock keys create <name> [--scope admin|write|read] [--expires 30d] | paddock keys revoke <key id>');
  }
  ensureDataDir(config.dataDir);
  const store = await openDataStore(config);
  try {
    const access = new Access({ store, clock: systemClock });
    if (action === 'list') return await list(access);
    return action === 'create' ? await create(access, subject!, { scope, expiresAt }) : await revoke(access, subject!);
  } finally {
    await store.close();
  }
}

async function list(access: Access): Promise<number> {
  const rows = (await access.listKeys()).map((key) => [key.id, key.name, key.scope, `made ${day(key.createdAt)}`, key.lastUsedAt === null ? 'never used' : `used ${minute(key.lastUsedAt)}`, validity(key)]);
  if (rows.length === 0) process.stdout.write('There are no keys yet; the first start of the server makes one.\n');
  for (const row of rows) process.stdout.write(`${row.join('  ')}\n`);
  return 0;
}

async function create(access: Access, name: string, options: { readonly scope: KeyScope; readonly expiresAt: number | null }): Promise<number> {
  const { key, raw } = await access.createKey(name, options);
  // The key alone on standard output, so that a script can take it.
  process.stderr.write(`Made ${key.id} (${name}, ${key.scope}${key.expiresAt === null ? '' : `, until ${minute(key.expiresAt)}`}). The key is shown this once:\n`);
  process.stdout.write(`${raw}\n`);
  return 0;
}

async function revoke(access: Access, keyId: string): Promise<number> {
  if (!(await access.revokeKey(keyId))) throw new OperatorError(`There is no valid key ${keyId}; "paddock keys list" shows all.`);
  process.stdout.write(`${keyId} is revoked. A running server stops accepting it, and cuts what is open with it, within a second or two.\n`);
  return 0;
}

function day(at: number): string {
  return new Date(at).toISOString().slice(0, 10);
}

function minute(at: number): string {
  return `${new Date(at).toISOString().slice(0, 16)}Z`;
}

function validity({ revokedAt, expiresAt }: ApiKey): string {
  if (revokedAt !== null) return `revoked ${day(revokedAt)}`;
  if (expiresAt === null) return 'valid';
  return `${expiresAt <= systemClock.now() ? 'expired' : 'valid until'} ${minute(expiresAt)}`;
}

/** Takes `--scope` and `--expires` out of the arguments. */
function parseOptions(args: readonly string[]): { readonly words: readonly string[]; readonly scope: KeyScope; readonly expiresAt: number | null } {
  const words: string[] = [];
  let scope: KeyScope = 'admin';
  let expiresAt: number | null = null;
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === '--scope') scope = parseScope(args[++i] ?? '');
    else if (arg === '--expires') expiresAt = systemClock.now() + parseDuration(args[++i] ?? '');
    else if (arg.startsWith('--')) throw new OperatorError(`"${arg}" is not understood; keys create takes --scope and --expires.`);
    else words.push(arg);
  }
  return { words, scope, expiresAt };
}

function parseScope(text: string): KeyScope {
  if (text === 'admin' || text === 'write' || text === 'read') return text;
  throw new OperatorError(`--scope must be admin, write or read, but is "${text}".`);
}

/** Milliseconds. */
function parseDuration(text: string): number {
  const [, digits = '', unit = ''] = /^([1-9]\d{0,4})([mhd])$/.exec(text) ?? [];
  if (digits === '') throw new OperatorError(`--expires must be minutes, hours or days, such as 90m, 12h or 30d, but is "${text}".`);
  return Number(digits) * { m: 60_000, h: 3_600_000, d: 86_400_000 }[unit as 'm' | 'h' | 'd'];
}
