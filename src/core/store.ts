import type { IdempotencyStore } from './idempotency.ts';
import type { SandboxId, SandboxRef, SnapshotId, TeamId, VolumeId } from './ids.ts';
import type { ConnectionEvent, ConnectionVerdict } from './network/egress.ts';
import type { CheckpointRef } from './host.ts';
import type { EndReason, Sandbox, SandboxState } from './sandbox.ts';
import type { Snapshot, SnapshotSource } from './snapshot.ts';
import type { Authority, Binding } from './secrets/secret.ts';
import type { AuthorityStore, BindingStore, SecretStore, SecretUseStore } from './secrets/store.ts';
import type { BuildLogStore, LayerCache, TemplateStore } from './templates/template.ts';
import type { Volume } from './volume.ts';
import type { VolumeUsage } from './volume-storage.ts';

/** What a key may do: `read` looks, `write` changes, `admin` manages what belongs to the account too. */
export type KeyScope = 'admin' | 'write' | 'read';

export interface ApiKey {
  readonly id: string;
  readonly teamId: TeamId;
  readonly name: string;
  readonly createdAt: number;
  readonly revokedAt: number | null;
  readonly scope: KeyScope;
  /** Null for never. */
  readonly expiresAt: number | null;
  /** Within a minute; null for never. */
  readonly lastUsedAt: number | null;
}

export interface HashedKey extends ApiKey {
  /** SHA-256 of the key, hex. */
  readonly hash: string;
}

/** What a listing asks for. Newest first; a cursor names the last item seen, so that pages neither skip nor repeat. */
export interface SandboxQuery {
  readonly states: readonly SandboxState[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly limit: number;
  readonly after?: { readonly createdAt: number; readonly id: SandboxId };
  readonly offset?: number;
  /** Part of the name, letters of either case. */
  readonly nameContains?: string;
  /** Of those that have ended, only these. */
  readonly endReasons?: readonly EndReason[];
  readonly order?: SandboxOrder;
}

/** Another order than newest first; not together with `after`. States go by their place in the list. */
export interface SandboxOrder {
  readonly by: 'createdAt' | 'name' | { readonly states: readonly SandboxState[] };
  readonly descending: boolean;
}

export interface SandboxPage {
  readonly items: readonly Sandbox[];
  /** All that match, on every page. */
  readonly total: number;
  readonly more: boolean;
}

/** What a transition may change besides the state. */
export type SandboxPatch = Partial<
  Pick<
    Sandbox,
    | 'startedAt' | 'endAt' | 'timeoutSeconds' | 'guest' | 'end' | 'generation' | 'policy' | 'declared' | 'lifecycle' | 'metadata' | 'limits' | 'template'
    | 'envs' | 'defaultUser' | 'periodStartedAt' | 'pausedAt' | 'pauseCause' | 'autoDeleteAt' | 'snapshotId' | 'authorityId'
  >
>;

/** What else must still hold for a transition: the deadline that fell due has not been moved, say. */
export type SandboxGuard = Partial<Pick<Sandbox, 'endAt' | 'autoDeleteAt' | 'timeoutSeconds' | 'lifecycle'>>;

export interface SandboxStore {
  /** With its authority, if that is new, and its bindings: all or nothing. Throws `conflict` when the short id is taken. */
  insert(sandbox: Sandbox, brought?: { readonly authority: Authority | null; readonly bindings: readonly Binding[] }): Promise<void>;
  /** `null` as team means any: only for access that needs no key. */
  find(teamId: TeamId | null, ref: SandboxRef): Promise<Sandbox | null>;
  list(teamId: TeamId, query: SandboxQuery): Promise<SandboxPage>;
  /** Every sandbox in one of these states, over all teams: for recovery, deadlines and admission. */
  inStates(states: readonly SandboxState[]): Promise<readonly Sandbox[]>;
  /** How many there are in each state, over all teams; ended ones are not counted. */
  countByState(): Promise<Readonly<Partial<Record<SandboxState, number>>>>;
  /**
   * Compare-and-set: moves the sandbox to `to` if it is in one of `from` and the guard holds. Returns the new row, or null
   * when somebody else was first.
   */
  transition(id: SandboxId, from: readonly SandboxState[], to: SandboxState, patch: SandboxPatch, guard?: SandboxGuard): Promise<Sandbox | null>;
  /** The same together with the snapshot that the sandbox is paused with, new or finished now: both or neither. */
  transitionWith(snapshot: Snapshot, from: readonly SandboxState[], to: SandboxState, patch: SandboxPatch, guard?: SandboxGuard): Promise<Sandbox | null>;
  /** Only for a create that failed: removes the row as if it had never been; false when it is neither `creating` nor `running`. */
  remove(id: SandboxId): Promise<boolean>;
  /** Removes the tombstones of sandboxes that ended before `endedBefore`; returns how many. */
  purge(endedBefore: number): Promise<number>;
}

export type EventCategory = 'lifecycle' | 'admin' | 'template' | 'network' | 'command' | 'filesystem' | 'snapshot' | 'pty' | 'security';

/** Something that happened, with ids and a reason. Never holds a body, a secret or an environment value. */
export interface PaddockEvent {
  readonly at: number;
  readonly teamId: TeamId;
  readonly sandboxId: SandboxId | null;
  readonly category: EventCategory;
  readonly name: string;
  readonly detail: Readonly<Record<string, string | number | boolean | null>>;
}

/** One event of a listing over a team. */
export interface ListedEvent extends PaddockEvent {
  /** Grows with every event; not without holes. */
  readonly seq: number;
  /** Null when the event is of no sandbox, or its tombstone has expired. */
  readonly sandboxName: string | null;
}

/** What a listing of a team's events asks for. */
export interface EventQuery {
  readonly categories: readonly EventCategory[];
  /** Part of the event's name or of the sandbox's, letters of either case. */
  readonly text?: string;
  /** Inclusive. */
  readonly from?: number;
  /** Exclusive. */
  readonly until?: number;
  /** Only failures (names that end in `_failed`), or only the others. */
  readonly failed?: boolean;
  readonly descending: boolean;
  readonly limit: number;
  readonly offset: number;
}

export interface EventStore {
  append(events: readonly PaddockEvent[]): Promise<void>;
  /** Newest last. */
  list(teamId: TeamId, sandboxId: SandboxId, limit: number): Promise<readonly PaddockEvent[]>;
  /** Of all sandboxes of a team; `total` is on every page. */
  search(teamId: TeamId, query: EventQuery): Promise<{ readonly items: readonly ListedEvent[]; readonly total: number }>;
  /** Removes what is older than `before`, and the oldest beyond about `keepNewest`; returns how many. */
  purge(before: number, keepNewest: number): Promise<number>;
}

/** One connection in the network log. */
export interface LoggedConnection extends ConnectionEvent {
  /** Grows with every entry of the log; not without holes. */
  readonly seq: number;
}

/** What a listing of the network log asks for. Newest first; `before` is exclusive, `since` inclusive. */
export interface ConnectionQuery {
  readonly limit: number;
  readonly verdict?: ConnectionVerdict;
  readonly since?: number;
  /** With `seq`: after the entry of the page before; without: started before this time. */
  readonly before?: { readonly at: number; readonly seq?: number };
}

export interface ConnectionPage {
  readonly items: readonly LoggedConnection[];
  readonly more: boolean;
}

export interface NetworkEventStore {
  /** Of each sandbox about the newest 10,000 stay. */
  append(events: readonly (ConnectionEvent & { readonly teamId: TeamId })[]): Promise<void>;
  list(teamId: TeamId, sandboxId: SandboxId, query: ConnectionQuery): Promise<ConnectionPage>;
  /** Removes what began before `before`, and the oldest beyond about `keepNewest`; returns how many. */
  purge(before: number, keepNewest: number): Promise<number>;
}

/** A port that is published at a host name of its own. */
export interface PreviewPort {
  readonly port: number;
  readonly access: 'public' | 'private';
  /** Tokens of other versions open nothing. */
  readonly tokenVersion: number;
}

export interface PreviewPortStore {
  /** By number. */
  list(sandboxId: SandboxId): Promise<readonly PreviewPort[]>;
  find(sandboxId: SandboxId, port: number): Promise<PreviewPort | null>;
  /** With `access` if it is new; one that is there gets `otherwise`, unless that is null. */
  publish(sandboxId: SandboxId, port: number, access: PreviewPort['access'], otherwise: PreviewPort['access'] | null): Promise<PreviewPort>;
  unpublish(sandboxId: SandboxId, port: number): Promise<void>;
  /** Null when it is not published. */
  rotate(sandboxId: SandboxId, port: number): Promise<PreviewPort | null>;
}

/** Deadlines of processes that outlive the request that started them, so that a restart of the server does not lose them. */
export interface ProcessDeadline {
  readonly teamId: TeamId;
  readonly sandboxId: SandboxId;
  readonly processId: string;
  readonly at: number;
}

export interface ProcessDeadlineStore {
  put(deadline: ProcessDeadline): Promise<void>;
  remove(sandboxId: SandboxId, processId: string): Promise<void>;
  removeAll(sandboxId: SandboxId): Promise<void>;
  /** Puts these in the place of whatever the sandbox had. */
  replaceAll(sandboxId: SandboxId, deadlines: readonly ProcessDeadline[]): Promise<void>;
  all(): Promise<readonly ProcessDeadline[]>;
}

/** What a listing of snapshots asks for. Newest first. */
export interface SnapshotQuery {
  readonly sandboxId?: SandboxId;
  readonly sources: readonly SnapshotSource[];
  readonly limit: number;
  readonly after?: { readonly createdAt: number; readonly id: SnapshotId };
  readonly offset?: number;
}

export interface SnapshotPage {
  readonly items: readonly Snapshot[];
  readonly total: number;
  readonly more: boolean;
}

export interface SnapshotStore {
  /** Throws `conflict` when the sandbox has one with this idempotency key. */
  insert(snapshot: Snapshot): Promise<void>;
  /** Null when it was removed meanwhile. */
  finish(id: SnapshotId, checkpoint: CheckpointRef, readyAt: number): Promise<Snapshot | null>;
  rename(id: SnapshotId, name: string): Promise<Snapshot | null>;
  find(teamId: TeamId | null, id: SnapshotId): Promise<Snapshot | null>;
  findByKey(teamId: TeamId, sandboxId: SandboxId, idempotencyKey: string): Promise<Snapshot | null>;
  list(teamId: TeamId, query: SnapshotQuery): Promise<SnapshotPage>;
  /** Over all teams: of one sandbox, or every one. Oldest first. */
  all(sandboxId?: SandboxId): Promise<readonly Snapshot[]>;
  /** Unless a sandbox is to go on from it (`conflict`); false when there is none. */
  remove(id: SnapshotId): Promise<boolean>;
  /** How many finished and unfinished ones a team has, forks' not counted, and what they take on disk; shared checkpoints count once. */
  usage(teamId: TeamId): Promise<{ readonly count: number; readonly unfinished: number; readonly bytes: number }>;
  /** Whether any snapshot names the checkpoint. */
  names(checkpointId: string): Promise<boolean>;
}

export interface VolumeStore {
  insert(volume: Volume): Promise<void>;
  find(teamId: TeamId, id: VolumeId): Promise<Volume | null>;
  /** Newest first. */
  list(teamId: TeamId, page: { readonly limit: number; readonly after?: Pick<Volume, 'createdAt' | 'id'> }): Promise<readonly Volume[]>;
  /** Over all teams. */
  ids(): Promise<readonly VolumeId[]>;
  count(teamId: TeamId): Promise<number>;
  resize(id: VolumeId, usage: VolumeUsage, updatedAt: number): Promise<void>;
  /** With its locks; false when there is none. */
  remove(teamId: TeamId, id: VolumeId): Promise<boolean>;
}

/** A lease on a path of a volume. Whether anything is at the path does not matter. */
export interface VolumeLock {
  readonly volumeId: VolumeId;
  readonly path: string;
  /** SHA-256 of the token, hex. */
  readonly tokenHash: string;
  readonly expiresAt: number;
}

export interface VolumeLockStore {
  /** `held` when somebody holds it at `now`, `too_many` when the volume has `most` others. */
  acquire(lock: VolumeLock, now: number, most: number): Promise<'acquired' | 'held' | 'too_many'>;
  /** False when it is not held at `now` by this token. */
  renew(lock: VolumeLock, now: number): Promise<boolean>;
  release(volumeId: VolumeId, path: string, tokenHash: string): Promise<boolean>;
  /** Null when nobody holds it at `now`. */
  find(volumeId: VolumeId, path: string, now: number): Promise<VolumeLock | null>;
}

export interface KeyStore {
  /** When a team was made, milliseconds since the epoch; null when there is none. */
  createdAt(teamId: TeamId): Promise<number | null>;
  /** The team that single-user installations use; made on first use. */
  defaultTeam(): Promise<TeamId>;
  /** `hash` is SHA-256 of the key, hex. */
  findByHash(hash: string): Promise<HashedKey | null>;
  insert(key: ApiKey, hash: string): Promise<void>;
  list(teamId: TeamId): Promise<readonly ApiKey[]>;
  revoke(teamId: TeamId, keyId: string, at: number): Promise<boolean>;
  /** Those of them that are revoked, or expired at `at`. */
  invalid(keyIds: readonly string[], at: number): Promise<readonly string[]>;
  used(keyId: string, at: number): Promise<void>;
}

/** All durable state. What has been awaited survives a crash of the process and of the machine. */
export interface Store {
  readonly sandboxes: SandboxStore;
  readonly snapshots: SnapshotStore;
  readonly events: EventStore;
  readonly networkEvents: NetworkEventStore;
  readonly processDeadlines: ProcessDeadlineStore;
  readonly previewPorts: PreviewPortStore;
  readonly volumes: VolumeStore;
  readonly volumeLocks: VolumeLockStore;
  readonly templates: TemplateStore;
  readonly buildLogs: BuildLogStore;
  readonly layerCache: LayerCache;
  readonly keys: KeyStore;
  readonly secrets: SecretStore;
  readonly secretBindings: BindingStore;
  readonly secretUses: SecretUseStore;
  readonly authorities: AuthorityStore;
  readonly idempotency: IdempotencyStore;
  close(): Promise<void>;
}
