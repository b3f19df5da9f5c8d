import { formatAddress } from '../core/network/addresses.ts';
import type { Verdict } from '../core/network/decide.ts';
import type { ConnectionLog } from './connection-log.ts';
import type { Refusals } from './filter.ts';
import type { PolicyTable } from './table.ts';

/** Writes down what the packet filter refused before a handshake, with the rule that the same destination is judged by. */
export function recordRefusals(refusals: readonly Refusals[], table: PolicyTable, log: ConnectionLog): void {
  for (const { source, destination, port, count } of refusals) {
    const guest = table.at(formatAddress(source));
    if (guest === undefined) continue;
    const name = guest.names.nameOf(destination);
    const verdict = guest.decide({ name, address: name === null ? destination : null, port });
    // Only a limit refuses what the rules allow, or rules that have changed since.
    const limited: Verdict = { allowed: false, matchRule: 'protocol', rule: null, reason: 'Too many connections were opened at once.' };
    const { matchRule, rule, reason } = verdict.allowed ? limited : verdict;
    log.record({
      sandboxId: guest.id,
      at: Date.now(),
      host: name,
      address: formatAddress(destination),
      port,
      protocol: 'tcp',
      verdict: 'blocked',
      matchRule,
      rule,
      reason,
      bytesSent: 0,
      bytesReceived: 0,
      durationMs: 0,
      count,
    });
  }
}
