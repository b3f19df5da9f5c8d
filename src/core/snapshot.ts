import type { CheckpointRef } from './host.ts';
import type { AuthorityId, SandboxId, SnapshotId, TeamId } from './ids.ts';
import type { Declared, EnforcedPolicy, Lifecycle, SandboxTemplate, WireName } from './sandbox.ts';
import type { Limits } from './template.ts';

/** Why a snapshot was made. One of a fork serves that call only. */
export type SnapshotSource = 'manual' | 'pause' | 'fork';

/** How long a process of the snapshot had left; kept by whoever counts, since the guest does not. */
export interface ProcessRemainder {
  readonly processId: string;
  readonly remainingMs: number;
}

/** What must be known beside the checkpoint to make a sandbox from it: the sandbox as it was. */
export interface Captured {
  readonly generation: number;
  readonly wire: WireName;
  readonly template: SandboxTemplate;
  readonly limits: Limits;
  readonly defaultUser: string;
  /** Sealed at rest. */
  readonly envs: Readonly<Record<string, string>>;
  readonly policy: EnforcedPolicy;
  readonly declared: Declared;
  readonly lifecycle: Lifecycle;
  readonly timeoutSeconds: number;
  readonly processes: readonly ProcessRemainder[];
  /** Its programs have loaded the certificate. */
  readonly authorityId: AuthorityId | null;
}

/** A saved state of a sandbox, as stored. Times are milliseconds since the epoch. */
export interface Snapshot {
  readonly id: SnapshotId;
  readonly teamId: TeamId;
  /** Whose state it is; that sandbox may be long gone. */
  readonly sandboxId: SandboxId;
  readonly source: SnapshotSource;
  readonly name: string | null;
  /** A repeated request with the same key gets the same snapshot. */
  readonly idempotencyKey: string | null;
  /** Null while it is being made; what is not finished at the next start is removed. */
  readonly checkpoint: CheckpointRef | null;
  readonly createdAt: number;
  readonly readyAt: number | null;
  readonly captured: Captured;
}

/** One that is finished. */
export type ReadySnapshot = Snapshot & { readonly checkpoint: CheckpointRef; readonly readyAt: number };

export function isReady(snapshot: Snapshot): snapshot is ReadySnapshot {
  return snapshot.checkpoint !== null && snapshot.readyAt !== null;
}
