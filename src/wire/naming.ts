import type { NamingTable } from '../core/identity.ts';
import { declawNaming } from './declaw/naming.ts';
import { superserveNaming } from './superserve/naming.ts';

/** What each wire calls its sandboxes from within. */
export const naming: NamingTable = { declaw: declawNaming, superserve: superserveNaming };
