import type { Config } from '../config.ts';
import { removeOldArtefacts } from '../host/old-artefacts.ts';
import { claimDataDir, ensureDataDir } from './data-dir.ts';
import { openLog } from './log.ts';
import { openServices } from './services.ts';

/**
 * Removes what belongs to no sandbox: guests, links, mounts and files that a crash has left, and the records of sandboxes that
 * ended long ago, what builds of templates have left, and what earlier versions of Paddock have set up. A running server does the same at its start and from time to time, so this needs it stopped.
 */
export async function gc(config: Config): Promise<number> {
  ensureDataDir(config.dataDir);
  using _lock = claimDataDir(config.dataDir);
  const { log, flush } = openLog('warn');
  try {
    const services = await openServices({ ...config, warmGuests: 0 }, log);
    const freed = await services.ownTemplates.collect();
    // Other servers' sandboxes would not be seen.
    const ownArtefacts = config.artefactsDir === config.dataDir;
    const old = ownArtefacts ? await removeOldArtefacts(config.artefactsDir, await services.host.artefactsInUse()) : 0;
    await services.close();
    process.stdout.write(`Nothing is left in ${config.dataDir} that belongs to no sandbox.\n`);
    if (freed > 0) process.stdout.write(`Layers of builds that no template has were removed: ${Math.ceil(freed / 1_048_576)} MiB.\n`);
    if (old > 0) process.stdout.write(`Earlier builds of agents, runtimes and built-in templates were removed: ${old}.\n`);
    return 0;
  } finally {
    flush();
  }
}
