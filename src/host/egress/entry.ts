import type { GuestSpec, KnownGuest, RestoreSpec } from '../../core/host.ts';
import type { SandboxId } from '../../core/ids.ts';
import type { EgressEntry } from '../../core/network/egress.ts';

/** What the egress has to know of a guest at this address. */
export function entryOf(sandboxId: SandboxId, address: string, { teamId, network, inspection }: Pick<GuestSpec | RestoreSpec | KnownGuest, 'teamId' | 'network' | 'inspection'>): EgressEntry {
  return { sandboxId, teamId, address, policy: network, ...(inspection == null ? {} : { inspection }) };
}
