import type { Destination, Verdict } from '../core/network/decide.ts';
import type { Dialled } from './dial.ts';
import type { Guest } from './guest.ts';

type Unconnected = Exclude<Dialled, { kind: 'connected' }>;

/** Where a request wants to go, and may not or cannot, as an error of that request. */
export class DialError extends Error {
  readonly dialled: Unconnected;

  constructor(dialled: Unconnected) {
    super(dialled.kind === 'failed' ? dialled.reason : dialled.verdict.reason);
    this.dialled = dialled;
  }
}

/** @throws DialError when the rules are against it. */
export function assertAllowed(guest: Guest, destination: Destination): void {
  const verdict = guest.decide(destination);
  if (!verdict.allowed) throw new DialError({ kind: 'blocked', destination, verdict });
}

/** Of what cannot be judged. */
export function protocolFault(reason: string): Verdict {
  return { allowed: false, matchRule: 'protocol', rule: null, reason };
}
