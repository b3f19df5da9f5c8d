import type { Config } from '../config.ts';
import { rotateMasterKey } from '../store/key-rotation.ts';
import { claimDataDir, ensureDataDir, OperatorError, storeFiles } from './data-dir.ts';

/** What an operator does about everybody's secrets; with the server stopped. Resolves to the exit code. */
export async function secrets(config: Config, args: readonly string[]): Promise<number> {
  if (args.length !== 1 || args[0] !== 'rotate-key') throw new OperatorError('Usage: paddock secrets rotate-key');
  ensureDataDir(config.dataDir);
  using _lock = claimDataDir(config.dataDir);
  const files = storeFiles(config);
  const { before, after, sealed, damaged } = await rotateMasterKey(files);
  process.stdout.write(`${sealed} values are sealed with the new master key ${after}, in ${files.masterKey}.\nThe old one is kept in ${files.masterKey}.${before}: it opens copies of the database from before. Move it to where those are, or delete both.\n`);
  if (damaged.length === 0) return 0;
  process.stderr.write(`${damaged.length} values did not open before and do not now: their rows were damaged or altered.\n${damaged.slice(0, 20).join('\n')}\n`);
  return 2;
}
