import { createHash } from 'node:crypto';
import type { Kysely } from 'kysely';
import type { AuthorityId } from '../core/ids.ts';
import type { Authority } from '../core/secrets/secret.ts';
import type { AuthorityStore } from '../core/secrets/store.ts';
import { stored } from './fault.ts';
import type { AuthorityRow, Schema } from './schema.ts';
import type { Sealer } from './sealer.ts';

export class SqlAuthorities implements AuthorityStore {
  readonly #db: Kysely<Schema>;
  readonly #sealer: Sealer;

  constructor(db: Kysely<Schema>, sealer: Sealer) {
    this.#db = db;
    this.#sealer = sealer;
  }

  async insert(authority: Authority): Promise<void> {
    await stored('store the certificate authority', () => this.#db.insertInto('authorities').values(authorityRow(authority, this.#sealer)).execute());
  }

  async find(id: AuthorityId): Promise<Authority | null> {
    const row = await stored('read the certificate authority', () => this.#db.selectFrom('authorities').selectAll().where('id', '=', id).executeTakeFirst());
    if (row === undefined) return null;
    return Object.freeze({ id, certificate: row.certificate, privateKey: this.#sealer.open(keyOf(row), row.key_sealed), createdAt: row.created_at });
  }

  async purge(createdBefore: number): Promise<number> {
    const result = await stored('forget certificate authorities', () =>
      this.#db
        .deleteFrom('authorities')
        .where('created_at', '<', createdBefore)
        .where((e) => e.not(e.exists(e.selectFrom('sandboxes').select('sandboxes.id').whereRef('sandboxes.authority_id', '=', 'authorities.id'))))
        .where((e) => e.not(e.exists(e.selectFrom('snapshots').select('snapshots.id').whereRef('snapshots.authority_id', '=', 'authorities.id'))))
        .executeTakeFirst(),
    );
    return Number(result.numDeletedRows);
  }
}

/** An authority as its row, also for whoever writes it together with its sandbox. */
export function authorityRow(authority: Authority, sealer: Sealer): AuthorityRow {
  const { id, certificate, privateKey, createdAt } = authority;
  return { id, certificate, key_sealed: sealer.seal(keyOf({ id, certificate }), privateKey), created_at: createdAt };
}

/** The certificate is part of the place: guests are told to trust it, so it must be the one of the key. */
export function keyOf({ id, certificate }: Pick<AuthorityRow, 'id' | 'certificate'>): string {
  return `authorities/${id}/key/${createHash('sha256').update(certificate).digest('hex')}`;
}
