import type { Admission } from './admission.ts';
import type { Creation } from './creation.ts';
import type { Endings } from './endings.ts';
import type { EventLog } from './events.ts';
import type { Expiry } from './expiry.ts';
import type { CheckpointRef, GuestDeath, Host, KnownGuest } from './host.ts';
import type { SandboxId } from './ids.ts';
import { liveStates, type Sandbox } from './sandbox.ts';
import { isReady } from './snapshot.ts';
import { guestStates } from './state.ts';
import type { SecretBindings } from './secrets/bindings.ts';
import type { Store } from './store.ts';
import type { Tokens } from './tokens.ts';

interface RecoveryDeps {
  readonly store: Store;
  readonly host: Host;
  readonly tokens: Tokens;
  readonly admission: Admission;
  readonly creation: Creation;
  readonly endings: Endings;
  readonly expiry: Expiry;
  readonly events: EventLog;
  readonly bindings: SecretBindings;
}

/**
 * Brings rows and guests together after a restart, whatever the server was doing when it ended: half-made sandboxes are
 * removed, half-ended ones ended, living ones watched again, and lost ones marked with the reason the host found. Where a guest is gone
 * but its state was saved, the sandbox is paused.
 */
export async function recover(deps: RecoveryDeps): Promise<void> {
  const { store, host, tokens, admission, creation, endings, expiry, events } = deps;
  const rows = await store.sandboxes.inStates([...liveStates, 'killing']);
  for (const row of rows) if (row.state !== 'paused') admission.restore(row.id);
  const known = new Map<SandboxId, KnownGuest>();
  for (const row of rows) {
    if (row.guest === null || !guestStates.includes(row.state)) continue;
    const { inspection } = await deps.bindings.of(row);
    known.set(row.id, { ref: row.guest, agentToken: tokens.agent(row), teamId: row.teamId, network: row.policy.network, inspection });
  }
  const found = await host.recover(known);
  const saved = new Map((await host.checkpoints()).map((checkpoint) => [checkpoint.id, checkpoint]));
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
          if (!recovery.alive) return fallBack(deps, row, recovery.death, saved);
          const running = row.state === 'running' ? row : await store.sandboxes.transition(row.id, [row.state], 'running', { pauseCause: null, snapshotId: null });
          if (running !== null) expiry.watch(running);
          return undefined;
        }
        case 'paused':
          return expiry.watch(row);
        case 'killed':
          return undefined;
      }
    }),
  );
}

/** A guest is gone. If it was being paused and its state got to disk, or it was being resumed from what is there still, nothing is lost. */
async function fallBack({ store, admission, endings, expiry }: RecoveryDeps, row: Sandbox, death: GuestDeath, saved: ReadonlyMap<string, CheckpointRef>): Promise<void> {
  const snapshot = row.snapshotId === null ? null : await store.snapshots.find(null, row.snapshotId);
  const checkpoint = snapshot === null ? undefined : (snapshot.checkpoint ?? saved.get(snapshot.id));
  if (row.state === 'running' || snapshot === null || checkpoint === undefined || !saved.has(checkpoint.id)) return endings.bury(row, death);
  const pausedAt = isReady(snapshot) ? (row.pausedAt ?? snapshot.readyAt) : snapshot.createdAt;
  const { autoDeleteSeconds } = row.lifecycle;
  const paused = await store.sandboxes.transitionWith({ ...snapshot, checkpoint, readyAt: snapshot.readyAt ?? pausedAt }, [row.state], 'paused', {
    guest: null,
    endAt: null,
    periodStartedAt: null,
    pausedAt,
    pauseCause: row.pauseCause ?? 'asked',
    autoDeleteAt: autoDeleteSeconds === null ? null : pausedAt + autoDeleteSeconds * 1000,
  });
  if (paused === null) return;
  admission.leave(row.id);
  expiry.watch(paused);
}
