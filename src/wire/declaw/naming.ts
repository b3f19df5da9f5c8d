import type { Naming } from '../../core/identity.ts';
import { publicId } from './ids.ts';

/** How sandboxes of this wire know themselves from within. */
export const declawNaming: Naming = {
  hostname: publicId,
  env: (sandbox) => ({ DECLAW_SANDBOX: 'true', DECLAW_SANDBOX_ID: publicId(sandbox) }),
};
