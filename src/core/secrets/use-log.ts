import type { SecretId } from '../ids.ts';
import type { InspectionEvent } from '../network/inspection.ts';
import type { Store } from '../store.ts';
import type { LoggedUse } from './secret.ts';

/** Writes down in which requests secrets played a part. */
export function secretUseLog(store: Store): (events: readonly InspectionEvent[]) => Promise<void> {
  return async (events) => {
    const used = events.filter(({ secrets }) => secrets.length > 0);
    const owners = await store.secretBindings.secretsOf([...new Set(used.flatMap(({ secrets }) => secrets.map(({ bindingId }) => bindingId)))]);
    const uses: LoggedUse[] = [];
    const injectedAt = new Map<SecretId, number>();
    for (const event of used) {
      for (const { bindingId, outcome, code } of event.secrets) {
        const owner = owners.get(bindingId);
        if (owner === undefined) continue; // of a create that failed
        uses.push({
          at: event.at,
          ...owner,
          sandboxId: event.sandboxId,
          method: event.method,
          host: event.host,
          path: event.path,
          status: event.status ?? 0,
          upstreamStatus: event.upstreamStatus,
          latencyMs: event.durationMs,
          errorCode: outcome === 'injected' ? event.errorCode : (code ?? outcome),
        });
        if (outcome === 'injected') injectedAt.set(owner.secretId, Math.max(event.at, injectedAt.get(owner.secretId) ?? 0));
      }
    }
    await store.secretUses.append(uses);
    for (const [secretId, at] of injectedAt) await store.secrets.used([secretId], at);
  };
}
