import type { SandboxId, TeamId } from '../ids.ts';
import type { Inspection } from './inspection.ts';
import type { NetworkPolicy } from './rules.ts';

/** How a connection ended before or after its verdict. `failed`: allowed, but the other side could not be reached. */
export type ConnectionVerdict = 'allowed' | 'blocked' | 'failed';

/** One connection, or several refused ones to the same place within a second. */
export interface ConnectionEvent {
  readonly sandboxId: SandboxId;
  /** Start, milliseconds since the epoch. */
  readonly at: number;
  /** Null when no name is known: a literal address, and nothing that names a host in the first bytes. */
  readonly host: string | null;
  /** IPv4; null for a name that was refused before it was resolved. */
  readonly address: string | null;
  readonly port: number;
  readonly protocol: 'tcp' | 'dns';
  readonly verdict: ConnectionVerdict;
  /** `default`, `domain`, `cidr`, `implicit-deny`, `internal-ip`, `protocol`. */
  readonly matchRule: string;
  /** The owner's rule, as written; null when none gave the verdict. */
  readonly rule: string | null;
  /** Why it was blocked or failed, one sentence; empty when allowed. */
  readonly reason: string;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number;
  /** More than 1 when several equal refusals were put together. */
  readonly count: number;
}

/** The egress proxy, as the host needs it: fail closed. A guest that is not admitted reaches nothing. */
export interface Egress {
  /** Resolves when the policy is in force for this source address; replaces an earlier one, and cuts flows that the new one denies within 2 s. */
  admit(entry: EgressEntry): Promise<void>;
  /** Resolves when nothing can leave from this address any more; its flows are cut. */
  expel(address: string): Promise<void>;
}

export interface EgressEntry {
  readonly sandboxId: SandboxId;
  readonly teamId: TeamId;
  /** The guest's IPv4 address, which identifies it: the gateway drops every other source. */
  readonly address: string;
  readonly policy: NetworkPolicy;
  /** While it is being saved: what is open is cut, and nothing leaves until the entry comes without this. */
  readonly secluded?: boolean;
  /** Present when something has to be looked into. */
  readonly inspection?: Inspection;
}
