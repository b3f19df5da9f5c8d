import type { TeamId } from './ids.ts';
import type { KeyScope } from './store.ts';

/** Who asks. Every use case takes one; another team's objects are not found for it. */
export interface Principal {
  readonly teamId: TeamId;
  /** The API key's id, for the audit trail; never the key itself. */
  readonly keyId: string;
  /** Of the key; without one the way in has said what may be done. */
  readonly scope?: KeyScope;
}
