import { PaddockError } from '../core/errors.ts';
import type { GuestDeath, KnownGuest } from '../core/host.ts';
import { AgentClient } from './agent/client.ts';
import { bootId } from './process-table.ts';
import { type RestoredGuest, untilHeard } from './restoring.ts';
import type { Runtime } from './runtime.ts';
import type { Slots } from './slots.ts';

const answerWithinMs = 10_000;
/** One that may be paused, and does not answer for so long, is. */
const pausedAfterMs = 5_000;

/** Finds the guest of an earlier server again, and makes it run if that server left it standing still. */
export async function reattach({ ref, agentToken }: KnownGuest, runtime: Runtime, slots: Slots): Promise<{ readonly guest: RestoredGuest } | { readonly death: GuestDeath }> {
  if (ref.bootId !== bootId()) return { death: { reason: 'host_rebooted', detail: 'The machine was rebooted while the sandbox ran.' } };
  const slot = await slots.adopt(ref.slot, 0);
  if (!runtime.isAlive(ref)) return { death: await runtime.autopsy(ref.container, slot) };
  runtime.thaw(ref.container);
  const client = new AgentClient(ref.address, agentToken, () => runtime.isAlive(ref));
  try {
    const state = runtime.pauseState(ref);
    // One resume too many would end it.
    const runs = state === 'unknown' && (await untilHeard(client, AbortSignal.timeout(pausedAfterMs)).then(() => true, () => false));
    if (runs) runtime.forgetPause(ref);
    else if (state !== 'running') await runtime.resume(ref);
    await client.untilListening(AbortSignal.timeout(answerWithinMs), answerWithinMs);
    await client.processes(AbortSignal.timeout(5_000)); // proves that the guest knows its token
    return { guest: { slot, handle: ref, client } };
  } catch (reason) {
    client.end(new PaddockError('gone', 'the sandbox could not be re-attached'));
    return { death: { reason: 'agent_lost', detail: `The agent did not answer after the server's restart: ${(reason as Error).message}` } };
  }
}
