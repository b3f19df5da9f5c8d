import type { SandboxId, ShortId, TeamId } from './ids.ts';
import type { GuestRef } from './host.ts';
import type { NetworkPolicy } from './network/rules.ts';
import type { Limits } from './template.ts';

/**
 * creating → running → killed, and running ⇄ paused through `pausing` and `resuming` once a host can do it.
 * `killed` is final; the row stays as a tombstone until it expires.
 */
export type SandboxState = 'creating' | 'running' | 'pausing' | 'paused' | 'resuming' | 'killing' | 'killed';

/** Why a sandbox ended. */
export type EndReason =
  | 'killed' // asked for
  | 'timeout' // its deadline
  | 'host_rebooted'
  | 'out_of_memory' // hit the host's limit for its memory
  | 'runtime_crashed'
  | 'agent_lost' // process 1 ended or stopped answering
  | 'stopped'; // the operator ended everything

/** The protocol a sandbox was created through; it decides defaults such as user and host name, nothing else. */
export type WireName = 'declaw' | 'superserve' | 'e2b';

export interface Lifecycle {
  readonly onTimeout: 'kill' | 'pause';
  readonly autoResume: boolean;
}

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

/** One sandbox, as stored. Times are milliseconds since the epoch. */
export interface Sandbox {
  readonly id: SandboxId;
  readonly shortId: ShortId;
  readonly teamId: TeamId;
  readonly wire: WireName;
  /** What its owner calls it; empty on wires without names. Not unique. */
  readonly name: string;
  readonly template: { readonly id: string; readonly name: string; readonly digest: string };
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
  /** When the deadline falls; null without one. */
  readonly endAt: number | null;
  /** Counts identities: tokens are derived from (id, kind, generation). */
  readonly generation: number;
  /** The guest that runs it; null before it runs and after it ended. */
  readonly guest: GuestRef | null;
  /** Set when the end is decided, so already in `killing`. */
  readonly end: SandboxEnd | null;
}

/** States in which the sandbox exists for its user. */
export const liveStates: readonly SandboxState[] = ['creating', 'running', 'pausing', 'paused', 'resuming'];
