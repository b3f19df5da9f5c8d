import type { Sandbox } from '@declaw/sdk';

/** What a sandbox can do to make its neighbours suffer. Each goes on until the sandbox is killed. */
export const attacks: readonly { readonly name: string; readonly start: (sandbox: Sandbox) => Promise<unknown> }[] = [
  { name: 'a fork bomb', start: (sandbox) => inBackground(sandbox, 'f() { f | f & }; while :; do f; sleep 2; done') },
  { name: 'an output flood', start: (sandbox) => Promise.all([1, 2].map(() => inBackground(sandbox, 'yes 0123456789012345678901234567890123456789'))) },
  { name: 'loops on every core', start: (sandbox) => inBackground(sandbox, 'for i in $(seq $(nproc)); do while :; do :; done & done; wait') },
  { name: 'a disk filler', start: (sandbox) => inBackground(sandbox, 'while :; do head -c 1G /dev/zero > f; sync; done') },
];

function inBackground(sandbox: Sandbox, command: string): Promise<unknown> {
  return sandbox.commands.run(command, { background: true, timeout: 0 });
}
