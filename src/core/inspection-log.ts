import type { EventLog } from './events.ts';
import type { GuardrailFinding } from './guardrails/finding.ts';
import type { Host } from './host.ts';
import type { InspectionEvent } from './network/inspection.ts';
import { secretUseLog } from './secrets/use-log.ts';
import type { PaddockEvent, Store } from './store.ts';

interface InspectionLogDeps {
  readonly store: Store;
  readonly host: Host;
  readonly events: EventLog;
}

/** Writes down what was done about requests that were looked into. Must be called before the sandboxes are started: what happened while no server ran is told at once. */
export function logInspections({ store, host, events }: InspectionLogDeps): void {
  const logSecretUses = secretUseLog(store);
  host.onInspections(async (inspections) => {
    await logSecretUses(inspections);
    for (const inspection of inspections) {
      if (inspection.guardrails.length === 0) continue;
      const sandbox = await store.sandboxes.find(null, { id: inspection.sandboxId });
      // None for a create that failed: nobody can ask for its log.
      if (sandbox === null) continue;
      for (const finding of inspection.guardrails) events.ofSandbox(sandbox, 'security', nameOf(finding), detailOf(inspection, finding));
    }
  });
}

function nameOf({ outcome, blocked }: GuardrailFinding): string {
  return blocked ? 'guardrail_blocked' : outcome === 'not_scanned' ? 'guardrail_not_scanned' : 'guardrail_applied';
}

/** How much was found, and of what kinds; never what. */
function detailOf({ method, host, port, path, status }: InspectionEvent, { guardrail, direction, outcome, blocked, counts, score, reason }: GuardrailFinding): PaddockEvent['detail'] {
  const kinds = Object.entries(counts);
  return {
    guardrail,
    direction,
    outcome,
    blocked,
    count: kinds.reduce((sum, [, count]) => sum + count, 0),
    kinds: kinds.map(([kind, count]) => `${kind} ${count}`).join(', '),
    ...(score === null ? {} : { score }),
    ...(reason === null ? {} : { reason }),
    method,
    host,
    port,
    path,
    status,
  };
}
