import type { Config } from '../config.ts';
import { Access } from '../core/access.ts';
import { systemClock } from '../core/clock.ts';
import { ensureDataDir, OperatorError } from './data-dir.ts';
import { openDataStore } from './services.ts';

/** Lists, makes and revokes API keys, whether a server runs or not. Resolves to the exit code. */
export async function keys(config: Config, args: readonly string[]): Promise<number> {
  const [action, subject, ...rest] = args;
  if (rest.length > 0 || !['list', 'create', 'revoke'].includes(action ?? '') || (action === 'list') !== (subject === undefined)) {
    throw new OperatorError('Usage: paddock keys list | paddock keys create <name> | paddock keys revoke <key id>');
  }
  ensureDataDir(config.dataDir);
  const store = await openDataStore(config);
  try {
    const access = new Access({ store, clock: systemClock });
    if (action === 'list') return await list(access);
    return action === 'create' ? await create(access, subject!) : await revoke(access, subject!);
  } finally {
    await store.close();
  }
}

async function list(access: Access): Promise<number> {
  const rows = (await access.listKeys()).map((key) => [key.id, key.name, day(key.createdAt), key.revokedAt === null ? 'valid' : `revoked ${day(key.revokedAt)}`]);
  if (rows.length === 0) process.stdout.write('There are no keys yet; the first start of the server makes one.\n');
  for (const row of rows) process.stdout.write(`${row.join('  ')}\n`);
  return 0;
}

async function create(access: Access, name: string): Promise<number> {
  const { key, raw } = await access.createKey(name);
  // The key alone on standard output, so that a script can take it.
  process.stderr.write(`Made ${key.id} (${name}). The key is shown this once:\n`);
  process.stdout.write(`${raw}\n`);
  return 0;
}

async function revoke(access: Access, keyId: string): Promise<number> {
  if (!(await access.revokeKey(keyId))) throw new OperatorError(`There is no valid key ${keyId}; "paddock keys list" shows all.`);
  process.stdout.write(`${keyId} is revoked. A running server stops accepting it within 5 seconds.\n`);
  return 0;
}

function day(at: number): string {
  return new Date(at).toISOString().slice(0, 10);
}
