import type { AuthorityId, SandboxId, SecretId, TeamId } from '../ids.ts';
import type { SandboxAuthority, SecretRule } from '../network/inspection.ts';
import type { SandboxState } from '../sandbox.ts';

/** A secret without its value, which only the egress proxy gets. Times are milliseconds since the epoch. */
export interface Secret {
  readonly id: SecretId;
  readonly teamId: TeamId;
  /** Names are unique within one, among secrets that are not deleted. */
  readonly environment: string;
  readonly name: string;
  /** Of the catalogue; null for rules of its owner's own. */
  readonly provider: string | null;
  /** Where it may go; `when` is what a binding makes of it. */
  readonly rules: readonly SecretRule[];
  readonly createdAt: number;
  readonly updatedAt: number;
  /** When it last got another value. */
  readonly rotatedAt: number | null;
  /** How often its owner means to rotate it; nothing happens by itself. */
  readonly rotationIntervalDays: number | null;
  readonly lastUsedAt: number | null;
  /** The value is gone from then on; the row stays for whoever still has a stand-in. */
  readonly deletedAt: number | null;
}

/** A secret in the hands of one sandbox. */
export interface Binding {
  /** UUID. */
  readonly id: string;
  readonly teamId: TeamId;
  readonly sandboxId: SandboxId;
  readonly secretId: SecretId;
  /** The environment variable that holds the stand-in. */
  readonly variable: string;
  readonly standIn: string;
  readonly when: SecretRule['when'];
  /** The stand-in came with the memory of another sandbox: its programs have it, no variable does. */
  readonly inherited: boolean;
  readonly createdAt: number;
  /** From then on the stand-in is refused. */
  readonly detachedAt: number | null;
}

/** A binding as its owner sees it. */
export interface NamedBinding extends Omit<Binding, 'standIn'> {
  readonly environment: string;
  readonly secretName: string;
  readonly revoked: boolean;
}

/** A secret with its value, for the proxy's table. */
export interface OpenedSecret {
  readonly secret: Secret;
  /** Null when it was deleted or cannot be opened. */
  readonly value: string | null;
  /** Why it cannot be opened; null when nothing is wrong. */
  readonly fault: string | null;
}

/** Where a secret is bound. */
export interface SecretUsage {
  readonly sandboxId: SandboxId;
  readonly sandboxName: string;
  readonly variable: string;
  readonly state: SandboxState;
}

/** The certificate authority of a sandbox and of what was made from its state. */
export interface Authority extends SandboxAuthority {
  readonly id: AuthorityId;
  readonly createdAt: number;
}

/** One request in which a secret played a part. */
export interface LoggedUse {
  readonly at: number;
  readonly teamId: TeamId;
  readonly secretId: SecretId;
  readonly sandboxId: SandboxId;
  readonly method: string;
  readonly host: string;
  readonly path: string;
  /** What the program inside was answered; 0 when it left before. */
  readonly status: number;
  readonly upstreamStatus: number | null;
  readonly latencyMs: number;
  /** Null when the secret was put in. */
  readonly errorCode: string | null;
}

export interface ListedUse extends LoggedUse {
  /** Grows with every entry; not without holes. */
  readonly seq: number;
  /** Null when the sandbox's tombstone has expired. */
  readonly sandboxName: string | null;
}
