import type { Kysely } from 'kysely';
import type { SandboxId, SecretId, TeamId } from '../core/ids.ts';
import { liveStates, type SandboxState } from '../core/sandbox.ts';
import type { Binding, NamedBinding, SecretUsage } from '../core/secrets/secret.ts';
import type { BindingStore } from '../core/secrets/store.ts';
import { stored } from './fault.ts';
import type { Schema, SecretBindingRow } from './schema.ts';
import type { Sealer } from './sealer.ts';

export class SqlSecretBindings implements BindingStore {
  readonly #db: Kysely<Schema>;
  readonly #sealer: Sealer;

  constructor(db: Kysely<Schema>, sealer: Sealer) {
    this.#db = db;
    this.#sealer = sealer;
  }

  async insert(binding: Binding): Promise<void> {
    await stored('bind the secret', () => this.#db.insertInto('secret_bindings').values(bindingRow(binding, this.#sealer)).execute());
  }

  async ofSandbox(sandboxId: SandboxId): Promise<{ readonly bindings: readonly Binding[]; readonly altered: number }> {
    const rows = await stored('read the bindings', () => this.#db.selectFrom('secret_bindings').selectAll().where('sandbox_id', '=', sandboxId).orderBy('created_at').orderBy('id').execute());
    const bindings = rows.flatMap((row) => this.#fromRow(row) ?? []);
    return { bindings, altered: rows.length - bindings.length };
  }

  async list(sandboxId: SandboxId): Promise<readonly NamedBinding[]> {
    const rows = await stored('read the bindings', () =>
      this.#db
        .selectFrom('secret_bindings')
        .innerJoin('secrets', 'secrets.id', 'secret_bindings.secret_id')
        .selectAll('secret_bindings')
        .select(['secrets.name as secret_name', 'secrets.environment', 'secrets.deleted_at'])
        .where('sandbox_id', '=', sandboxId)
        .where('detached_at', 'is', null)
        .where('inherited', '=', 0)
        .orderBy('variable')
        .execute(),
    );
    return rows.map((row) => Object.freeze({ ...plain(row), secretName: row.secret_name, environment: row.environment, revoked: row.deleted_at !== null }));
  }

  async detach(sandboxId: SandboxId, variable: string, at: number): Promise<boolean> {
    return stored('detach the secret', () =>
      this.#db.transaction().execute(async (work) => {
        const row = await work
          .updateTable('secret_bindings')
          .set({ detached_at: at })
          .where('sandbox_id', '=', sandboxId)
          .where('variable', '=', variable)
          .where('detached_at', 'is', null)
          .where('inherited', '=', 0)
          .returning('id')
          .executeTakeFirst();
        if (row === undefined) return false;
        // What its programs have in memory from before goes with it.
        await work.updateTable('secret_bindings').set({ detached_at: at }).where('sandbox_id', '=', sandboxId).where('variable', '=', variable).where('inherited', '=', 1).where('detached_at', 'is', null).execute();
        return true;
      }),
    );
  }

  async remove(id: string): Promise<void> {
    await stored('remove the binding', () => this.#db.deleteFrom('secret_bindings').where('id', '=', id).execute());
  }

  async sandboxesOf(secretId: SecretId): Promise<readonly SandboxId[]> {
    const rows = await stored('read the bindings', () => this.#db.selectFrom('secret_bindings').select('sandbox_id').distinct().where('secret_id', '=', secretId).where('detached_at', 'is', null).execute());
    return rows.map((row) => row.sandbox_id as SandboxId);
  }

  async usage(teamId: TeamId, secretId: SecretId): Promise<readonly SecretUsage[]> {
    const rows = await stored('read the bindings', () =>
      this.#db
        .selectFrom('secret_bindings')
        .innerJoin('sandboxes', 'sandboxes.id', 'secret_bindings.sandbox_id')
        .select(['sandboxes.id', 'sandboxes.name', 'sandboxes.state', 'secret_bindings.variable'])
        .where('secret_bindings.team_id', '=', teamId)
        .where('secret_bindings.secret_id', '=', secretId)
        .where('secret_bindings.detached_at', 'is', null)
        .where('secret_bindings.inherited', '=', 0)
        .where('sandboxes.state', 'in', liveStates)
        .orderBy('secret_bindings.created_at', 'desc')
        .orderBy('secret_bindings.id')
        .execute(),
    );
    return rows.map((row) => Object.freeze({ sandboxId: row.id as SandboxId, sandboxName: row.name, variable: row.variable, state: row.state as SandboxState }));
  }

  async secretsOf(ids: readonly string[]): Promise<ReadonlyMap<string, { readonly secretId: SecretId; readonly teamId: TeamId }>> {
    if (ids.length === 0) return new Map();
    const rows = await stored('read the bindings', () => this.#db.selectFrom('secret_bindings').select(['id', 'secret_id', 'team_id']).where('id', 'in', [...ids]).execute());
    return new Map(rows.map((row) => [row.id, { secretId: row.secret_id as SecretId, teamId: row.team_id as TeamId }]));
  }

  async purge(): Promise<number> {
    const result = await stored('forget bindings', () =>
      this.#db
        .deleteFrom('secret_bindings')
        .where((e) => e.not(e.exists(e.selectFrom('sandboxes').select('sandboxes.id').whereRef('sandboxes.id', '=', 'secret_bindings.sandbox_id'))))
        .where((e) => e.not(e.exists(e.selectFrom('snapshots').select('snapshots.id').whereRef('snapshots.sandbox_id', '=', 'secret_bindings.sandbox_id'))))
        .executeTakeFirst(),
    );
    return Number(result.numDeletedRows);
  }

  #fromRow(row: SecretBindingRow): Binding | null {
    try {
      return Object.freeze({ ...plain(row), standIn: this.#sealer.open(standInOf(row), row.stand_in_sealed) });
    } catch {
      return null; // counted by whoever asks
    }
  }
}

/** A binding as its row, also for whoever writes it together with its sandbox. */
export function bindingRow(binding: Binding, sealer: Sealer): SecretBindingRow {
  const row = {
    id: binding.id,
    team_id: binding.teamId,
    sandbox_id: binding.sandboxId,
    secret_id: binding.secretId,
    variable: binding.variable,
    stand_in_sealed: '',
    when_used: binding.when,
    inherited: binding.inherited ? 1 : 0,
    created_at: binding.createdAt,
    detached_at: binding.detachedAt,
  };
  return { ...row, stand_in_sealed: sealer.seal(standInOf(row), binding.standIn) };
}

/** Whose hands the secret is in is part of the place: a row that is made to name another sandbox or secret does not open. */
export function standInOf(row: Pick<SecretBindingRow, 'id' | 'team_id' | 'sandbox_id' | 'secret_id' | 'when_used'>): string {
  return `secret_bindings/${row.id}/${row.team_id}/${row.sandbox_id}/${row.secret_id}/${row.when_used}`;
}

function plain(row: SecretBindingRow): Omit<Binding, 'standIn'> {
  return {
    id: row.id,
    teamId: row.team_id as TeamId,
    sandboxId: row.sandbox_id as SandboxId,
    secretId: row.secret_id as SecretId,
    variable: row.variable,
    when: row.when_used as Binding['when'],
    inherited: row.inherited !== 0,
    createdAt: row.created_at,
    detachedAt: row.detached_at,
  };
}
