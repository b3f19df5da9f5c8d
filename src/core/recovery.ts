import type { Admission } from './admission.ts';
import type { Creation } from './creation.ts';
import type { Endings } from './endings.ts';
import type { EventLog } from './events.ts';
import type { Host, KnownGuest } from './host.ts';
import type { SandboxId } from './ids.ts';
import { liveStates } from './sandbox.ts';
import { guestStates } from './state.ts';
import type { Store } from './store.ts';
import type { Tokens } from './tokens.ts';

interface RecoveryDeps {
  readonly store: Store;
  readonly host: Host;
  readonly tokens: Tokens;
  readonly admission: Admission;
  readonly creation: Creation;
  readonly endings: Endings;
  readonly events: EventLog;
}

/**
 * Brings rows and guests together after a restart, whatever the server was doing when it ended: half-made sandboxes are
 * removed, half-ended ones ended, living ones watched again, and lost ones marked with the reason the host found.
 */
export async function recover(deps: RecoveryDeps): Promise<void> {
  const { store, host, tokens, admission, creation, endings, events } = deps;
  const rows = await store.sandboxes.inStates([...liveStates, 'killing']);
  for (const row of rows) admission.restore(row.id);
  const known = new Map<SandboxId, KnownGuest>();
  for (const row of rows) {
    if (row.guest === null || !guestStates.includes(row.state)) continue;
    known.set(row.id, { ref: row.guest, agentToken: tokens.agent(row), teamId: row.teamId, network: row.policy.network });
  }
  const found = await host.recover(known);
  await Promise.all(
    rows.map(async (row) => {
      switch (row.state) {
        case 'creating':
          events.ofSandbox(row, 'lifecycle', 'create_failed', { code: 'internal', message: 'the server was restarted while the sandbox was being created' });
          return creation.undo(row);
        case 'killing':
          // A failure is recorded and tried again; it must not keep the server from starting.
          return endings.finish(row).catch(() => undefined);
        case 'running':
        case 'pausing':
        case 'resuming': {
          const recovery = found.get(row.id) ?? { alive: false as const, death: { reason: 'runtime_crashed' as const, detail: 'its guest was not found' } };
          if (!recovery.alive) return endings.bury(row, recovery.death);
          const running = row.state === 'running' ? row : await store.sandboxes.transition(row.id, [row.state], 'running', {});
          if (running !== null) endings.watch(running);
          return undefined;
        }
        case 'paused':
          return endings.watch(row);
        case 'killed':
          return undefined;
      }
    }),
  );
}
