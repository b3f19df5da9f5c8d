import type { EndReason, Sandbox, SandboxState } from '../../core/sandbox.ts';

/** Every word this wire has for a sandbox (contract, section 9.1), but `migrating`, which the Python SDK does not know. */
export const statuses = ['starting', 'active', 'pausing', 'paused', 'resuming', 'failed', 'deleted'] as const;
export type Status = (typeof statuses)[number];

const ofLiving: Readonly<Partial<Record<SandboxState, Status>>> = Object.freeze({ creating: 'starting', running: 'active', pausing: 'pausing', paused: 'paused', resuming: 'resuming' });

/** An end that somebody wanted is a deletion; any other one is a failure, which stays visible until it is deleted or forgotten. */
const ofEnd: Readonly<Record<EndReason, Status>> = Object.freeze({
  killed: 'deleted',
  timeout: 'deleted',
  auto_deleted: 'deleted',
  host_rebooted: 'failed',
  out_of_memory: 'failed',
  runtime_crashed: 'failed',
  agent_lost: 'failed',
  stopped: 'failed',
});

export function statusOf({ state, end }: Pick<Sandbox, 'state' | 'end'>): Status {
  return ofLiving[state] ?? (state === 'killing' || end === null ? 'deleted' : ofEnd[end.reason]);
}

/** How a status is found in the store. */
export interface StatusFilter {
  readonly states: readonly SandboxState[];
  readonly endReasons: readonly EndReason[];
}

const liveStates = Object.keys(ofLiving) as SandboxState[];

function endsAs(status: Status): readonly EndReason[] {
  return (Object.keys(ofEnd) as EndReason[]).filter((reason) => ofEnd[reason] === status);
}

/** What lives or has failed. */
export const visible: StatusFilter = Object.freeze({ states: [...liveStates, 'killed'] as const, endReasons: endsAs('failed') });

export function filterOf(status: Status): StatusFilter {
  if (status === 'failed') return { states: ['killed'], endReasons: endsAs('failed') };
  if (status === 'deleted') return { states: ['killing', 'killed'], endReasons: endsAs('deleted') };
  return { states: liveStates.filter((state) => ofLiving[state] === status), endReasons: [] };
}

/** The states in the order of their words. */
export const statesByWord: readonly SandboxState[] = Object.freeze(['running', 'killed', 'killing', 'paused', 'pausing', 'resuming', 'creating']);
