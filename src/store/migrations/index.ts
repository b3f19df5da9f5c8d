import type { Kysely } from 'kysely';
import { firstTables } from './001-first-tables.ts';
import { networkLog } from './002-network-log.ts';
import { snapshots } from './003-snapshots.ts';
import { namesAndPreviews } from './004-names-and-previews.ts';
import { volumes } from './005-volumes.ts';
import { templates } from './006-templates.ts';
import { secrets } from './007-secrets.ts';
import { idempotency } from './009-idempotency.ts';
import { keyScopes } from './010-key-scopes.ts';

/** One step of the schema. Steps are never edited once released; a change is a new step. */
export interface Migration {
  readonly version: number;
  readonly name: string;
  /** Runs inside a transaction. Typed loosely, because a step must not follow later changes of the row types. */
  up(db: Kysely<any>): Promise<void>;
}

export const migrations: readonly Migration[] = [firstTables, networkLog, snapshots, namesAndPreviews, volumes, templates, secrets, idempotency, keyScopes];
