import type { AuthorityId, SandboxId, ShortId, SnapshotId, TeamId } from './ids.ts';
import type { GuestRef, VolumeMount } from './host.ts';
import type { Guardrails } from './guardrails/guardrails.ts';
import type { NetworkPolicy } from './network/rules.ts';
import type { Limits } from './template.ts';

/**
 * creating → running → killed, and running ⇄ paused through `pausing` and `resuming`. `killed` is final but for a restore from
 * a snapshot; the row stays as a tombstone until it expires.
 */
export type SandboxState = 'creating' | 'running' | 'pausing' | 'paused' | 'resuming' | 'killing' | 'killed';

/** Why a sandbox ended. */
export type EndReason =
  | 'killed' // asked for
  | 'timeout' // its deadline
  | 'auto_deleted' // it was paused for as long as it may be
  | 'host_rebooted'
  | 'out_of_memory' // hit the host's limit for its memory
  | 'runtime_crashed'
  | 'agent_lost' // process 1 ended or stopped answering
  | 'stopped'; // the operator ended everything

/** The protocol a sandbox was created through; it decides defaults such as user and host name, nothing else. */
export type WireName = 'declaw' | 'superserve' | 'e2b';

export interface Lifecycle {
  /** What happens when the running period has lasted its timeout. */
  readonly onTimeout: 'kill' | 'pause';
  /** Whether using a paused sandbox resumes it first. */
  readonly autoResume: boolean;
  /** Counted from the creation, in whatever state; it is killed then. */
  readonly maxLifetimeSeconds: number | null;
  /** How long it may be paused without a break before it is killed; 0 is at once. */
  readonly autoDeleteSeconds: number | null;
}

/** Who paused a sandbox. What the operator paused goes on by itself at the next start. */
export type PauseCause = 'asked' | 'timeout' | 'operator';

/** What a create asked for, as received, kept to be echoed. Enforcement never reads it. */
export interface Declared {
  readonly network?: unknown;
  readonly security?: unknown;
  readonly lifecycle?: unknown;
  readonly volumes?: unknown;
  readonly secure?: boolean;
}

/** The part of what was asked for that is in force, normalised; unlike `Declared` this is what decides. */
export interface EnforcedPolicy {
  /** Whether the ports inside may be reached from outside. */
  readonly allowPublicTraffic: boolean;
  /** Whether events beyond lifecycle and administration are kept. */
  readonly audit: boolean;
  /** What may be reached from inside. */
  readonly network: NetworkPolicy;
  /** Who may open the ports that are published at host names of their own, and whether they must be published at all. */
  readonly previews: PreviewAccess;
  /** The `Host` that programs behind the port proxy see, with `${PORT}` for the port; null for the usual one. */
  readonly maskRequestHost: string | null;
  /** What is looked for in its traffic; absent for nothing. */
  readonly guardrails?: Guardrails;
  /** Volumes that it has before its eyes; absent for none. */
  readonly volumes?: readonly VolumeMount[];
}

/**
 * Previews of a sandbox: `legacy_public` opens every port to everybody; else ports have to be published, and are open to everybody or to
 * whoever has a token, as published; the word is then what a port gets that is published without saying.
 */
export type PreviewAccess = 'legacy_public' | 'public' | 'private';

export interface SandboxEnd {
  readonly at: number;
  readonly reason: EndReason;
  /** One sentence or the last lines of a log, at most 4 KiB. */
  readonly detail: string;
}

/** What a sandbox was made from. */
export interface SandboxTemplate {
  readonly id: string;
  readonly name: string;
  readonly digest: string;
  /** What a template that a team has made says of processes. */
  readonly runtime?: { readonly workdir: string | null; readonly sudo: boolean };
}

/** One sandbox, as stored. Times are milliseconds since the epoch. */
export interface Sandbox {
  readonly id: SandboxId;
  readonly shortId: ShortId;
  readonly teamId: TeamId;
  readonly wire: WireName;
  /** What its owner calls it; empty on wires without names. Not unique. */
  readonly name: string;
  readonly template: SandboxTemplate;
  readonly limits: Limits;
  readonly state: SandboxState;
  readonly defaultUser: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** Sealed at rest. */
  readonly envs: Readonly<Record<string, string>>;
  readonly lifecycle: Lifecycle;
  readonly declared: Declared;
  readonly policy: EnforcedPolicy;
  /** Seconds; 0 means no deadline. */
  readonly timeoutSeconds: number;
  readonly createdAt: number;
  readonly startedAt: number | null;
  /** When the present running period has lasted its timeout; null without one, and while paused. */
  readonly endAt: number | null;
  /** When the present running period began: by the create, a resume or a restore. */
  readonly periodStartedAt: number | null;
  readonly pausedAt: number | null;
  readonly pauseCause: PauseCause | null;
  /** When it will have been paused for as long as it may be; null otherwise. */
  readonly autoDeleteAt: number | null;
  /** The snapshot it goes on from: set while it is paused, and while it is resumed or restored. */
  readonly snapshotId: SnapshotId | null;
  /** The snapshot it was made from, which may be gone by now. */
  readonly sourceSnapshotId: SnapshotId | null;
  /** Whose certificates it trusts for connections that are looked into; null until it has one. */
  readonly authorityId: AuthorityId | null;
  /** Counts identities: tokens are derived from (id, kind, generation). */
  readonly generation: number;
  /** The guest that runs it; null before it runs and after it ended. */
  readonly guest: GuestRef | null;
  /** Set when the end is decided, so already in `killing`. */
  readonly end: SandboxEnd | null;
}

/** What every sandbox is before its guest runs. */
export const unborn = Object.freeze({
  state: 'creating',
  generation: 1,
  startedAt: null,
  endAt: null,
  periodStartedAt: null,
  pausedAt: null,
  pauseCause: null,
  autoDeleteAt: null,
  snapshotId: null,
  guest: null,
  end: null,
} as const);

/** Ends that nobody asked for: what such a sandbox left behind is kept as long as its tombstone. */
export const crashes: readonly EndReason[] = ['host_rebooted', 'out_of_memory', 'runtime_crashed', 'agent_lost'];

/** States in which the sandbox exists for its user. */
export const liveStates: readonly SandboxState[] = ['creating', 'running', 'pausing', 'paused', 'resuming'];
