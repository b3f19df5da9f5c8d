import type { Config } from '../config.ts';
import { diagnose } from '../host/diagnose.ts';
import { ensureDataDir } from './data-dir.ts';

/** Looks at everything a sandbox needs, says what it found and what to do. Exit code 1 when something is missing. */
export async function doctor(config: Config): Promise<number> {
  ensureDataDir(config.dataDir);
  let failed = 0;
  for await (const finding of diagnose({ dataDir: config.dataDir, artefactsDir: config.artefactsDir })) {
    process.stdout.write(`${finding.ok ? 'ok    ' : 'failed'}  ${finding.name}: ${finding.detail}\n`);
    if (finding.ok) continue;
    failed += 1;
    if (finding.advice !== undefined) process.stdout.write(`        → ${finding.advice}\n`);
  }
  process.stdout.write(failed === 0 ? 'Sandboxes can run here.\n' : `${failed} ${failed === 1 ? 'thing is' : 'things are'} missing.\n`);
  return failed === 0 ? 0 : 1;
}
