import { PaddockError } from './errors.ts';
import type { EndReason, Sandbox, SandboxEnd } from './sandbox.ts';

const longestDetail = 4096;

const happened: Readonly<Record<EndReason, string>> = {
  killed: 'it was killed at',
  timeout: 'its timeout passed at',
  auto_deleted: 'it had been paused for as long as it may be, at',
  host_rebooted: 'its machine was rebooted; found at',
  out_of_memory: 'it used more memory than it may, at',
  runtime_crashed: 'its runtime crashed at',
  agent_lost: 'process 1 inside it ended or stopped answering at',
  stopped: 'the operator ended it at',
};

/** How a sandbox ended, with a detail of at most 4 KiB; of a longer one the end is kept, where logs say what happened. */
export function endOf(at: number, reason: EndReason, detail = ''): SandboxEnd {
  const bytes = Buffer.from(detail, 'utf8');
  if (bytes.length <= longestDetail) return Object.freeze({ at, reason, detail });
  let from = bytes.length - longestDetail;
  // Not in the middle of a character.
  while (((bytes[from] ?? 0) & 0xc0) === 0x80) from++;
  return Object.freeze({ at, reason, detail: bytes.toString('utf8', from) });
}

/** For whoever uses a sandbox that has ended: what ended it and when. */
export function goneError(end: SandboxEnd | null): PaddockError {
  if (end === null) return new PaddockError('gone', 'the sandbox has ended');
  const said = end.reason === 'killed' || end.detail === '' ? '' : ` (${end.detail.split('\n').at(-1)?.slice(0, 200) ?? ''})`;
  return new PaddockError('gone', `the sandbox has ended: ${happened[end.reason]} ${new Date(end.at).toISOString()}${said}`, { reason: end.reason });
}

/** Why a sandbox cannot be used now; null when it can. */
export function unusable(sandbox: Sandbox): PaddockError | null {
  switch (sandbox.state) {
    case 'running':
      return null;
    case 'creating':
      return new PaddockError('conflict', 'the sandbox is still being created; wait until it is running');
    case 'pausing':
    case 'paused':
    case 'resuming':
      return new PaddockError('conflict', `the sandbox is ${sandbox.state}; resume it first`);
    case 'killing':
    case 'killed':
      return goneError(sandbox.end);
  }
}
