// A server that does one thing to one sandbox and ends itself with SIGKILL when a stage of it is over. Usage:
//   node test/harness/dying-server.ts <pause|resume|snapshot|restore|fork> <sandbox id> <stage>
//   node test/harness/dying-server.ts create <idempotency key> <stage>
// With the stage `-` it lives to the end and prints the stages there were.
import { pino } from 'pino';
import { openServices } from '../../src/commands/services.ts';
import { claimDataDir } from '../../src/commands/data-dir.ts';
import { parseConfig } from '../../src/config.ts';
import type { Lap } from '../../src/core/host.ts';
import { createInput } from '../../src/wire/declaw/create.ts';
import { parsePublicId } from '../../src/wire/declaw/ids.ts';

const [operation = '', id = '', deadly = ''] = process.argv.slice(2);
const { config } = parseConfig(process.env);
using _lock = claimDataDir(config.dataDir);
const services = await openServices(config, pino({ level: 'silent' }));
const stages: string[] = [];
const lap: Lap = (stage) => {
  stages.push(stage);
  if (stage === deadly) process.kill(process.pid, 'SIGKILL');
};
const { sandboxes } = services;
const principal = { teamId: await services.store.keys.defaultTeam(), keyId: 'test' };
const ref = operation === 'create' ? { id: '' as never } : parsePublicId(id);
const operations: Record<string, () => Promise<unknown>> = {
  create: () =>
    services.idempotency.once(
      principal.teamId,
      id,
      {},
      (born) => sandboxes.create(principal, { ...createInput(principal.teamId, {}, {}, lap), born }, new AbortController().signal),
      (sandbox) => (lap('answer'), { sandbox_id: sandbox.id }),
    ),
  pause: () => sandboxes.pause(principal, ref, lap),
  resume: () => sandboxes.resume(principal, ref, lap),
  snapshot: () => sandboxes.snapshots.create(principal, ref, { lap }),
  restore: () => sandboxes.snapshots.restoreInPlace(principal, ref, null, lap),
  fork: () => sandboxes.forks.fork(principal, ref, 2, { lap }, new AbortController().signal),
};
try {
  await operations[operation]!();
  process.stdout.write(stages.join(' '));
} finally {
  await services.close();
}
