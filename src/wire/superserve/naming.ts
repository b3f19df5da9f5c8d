import type { Naming } from '../../core/identity.ts';

/** How sandboxes of this wire know themselves from within (contract, section 6.2). */
export const superserveNaming: Naming = {
  hostname: ({ id }) => `sandbox-${id.slice(0, 8)}`,
  env: () => ({}),
};
