import { setImmediate as othersFirst } from 'node:timers/promises';
import type { Expression, ExpressionBuilder, Kysely, SqlBool } from 'kysely';
import type { SandboxId, SecretId, TeamId } from '../core/ids.ts';
import type { ListedUse, LoggedUse } from '../core/secrets/secret.ts';
import type { SandboxUseQuery, SecretUseStore, UseQuery } from '../core/secrets/store.ts';
import { stored } from './fault.ts';
import type { Schema, SecretUseRow } from './schema.ts';

const rowsPerInsert = 200;
const purgedAtOnce = 1000;

/** The log of requests in which secrets played a part. */
export class SqlSecretUses implements SecretUseStore {
  readonly #db: Kysely<Schema>;

  constructor(db: Kysely<Schema>) {
    this.#db = db;
  }

  async append(uses: readonly LoggedUse[]): Promise<void> {
    for (let i = 0; i < uses.length; i += rowsPerInsert) {
      if (i > 0) await othersFirst();
      const rows = uses.slice(i, i + rowsPerInsert).map((use) => ({
        at: use.at,
        team_id: use.teamId,
        secret_id: use.secretId,
        sandbox_id: use.sandboxId,
        method: use.method.slice(0, 32),
        host: use.host.slice(0, 255),
        path: use.path.slice(0, 512),
        status: use.status,
        upstream_status: use.upstreamStatus,
        latency_ms: Math.round(use.latencyMs),
        error_code: use.errorCode,
      }));
      await stored('write the log of secrets', () => this.#db.insertInto('secret_uses').values(rows).execute());
    }
  }

  async list(teamId: TeamId, secretId: SecretId, { limit, before, status }: UseQuery): Promise<readonly ListedUse[]> {
    const rows = await stored('read the log of secrets', () => {
      let page = this.#ofTeam(teamId).where('secret_uses.secret_id', '=', secretId);
      if (before !== undefined) page = page.where('secret_uses.seq', '<', before);
      if (status !== undefined) page = page.where('secret_uses.status', '>=', status[0]).where('secret_uses.status', '<=', status[1]);
      return page.orderBy('secret_uses.seq', 'desc').limit(limit).execute();
    });
    return rows.map(fromRow);
  }

  async ofSandbox(teamId: TeamId, sandboxId: SandboxId, { limit, since, before }: SandboxUseQuery): Promise<readonly ListedUse[]> {
    const rows = await stored('read the log of secrets', () => {
      let page = this.#ofTeam(teamId).where('secret_uses.sandbox_id', '=', sandboxId);
      if (since !== undefined) page = page.where('secret_uses.at', '>=', since);
      if (before !== undefined) {
        const { at, seq } = before;
        page = seq === undefined ? page.where('secret_uses.at', '<', at) : page.where('secret_uses.at', '<=', at).where((e) => e.or([e('secret_uses.at', '<', at), e('secret_uses.seq', '<', seq)]));
      }
      return page.orderBy('secret_uses.at', 'desc').orderBy('secret_uses.seq', 'desc').limit(limit).execute();
    });
    return rows.map(fromRow);
  }

  #ofTeam(teamId: TeamId) {
    return this.#db.selectFrom('secret_uses').leftJoin('sandboxes', 'sandboxes.id', 'secret_uses.sandbox_id').selectAll('secret_uses').select('sandboxes.name as sandbox_name').where('secret_uses.team_id', '=', teamId);
  }

  async purge(before: number, keepNewest: number): Promise<number> {
    const newest = await stored('read the log of secrets', () => this.#db.selectFrom('secret_uses').select((e) => e.fn.max('seq').as('seq')).executeTakeFirst());
    const edge = (newest?.seq ?? 0) - keepNewest;
    return (await this.#delete((e) => e('at', '<', before))) + (await this.#delete((e) => e('seq', '<=', edge)));
  }

  async #delete(which: (e: ExpressionBuilder<Schema, 'secret_uses'>) => Expression<SqlBool>): Promise<number> {
    for (let deleted = 0; ; ) {
      const result = await stored('purge the log of secrets', () =>
        this.#db
          .deleteFrom('secret_uses')
          .where('seq', 'in', (e) => e.selectFrom('secret_uses').select('seq').where(which).limit(purgedAtOnce))
          .executeTakeFirst(),
      );
      deleted += Number(result.numDeletedRows);
      if (Number(result.numDeletedRows) < purgedAtOnce) return deleted;
      await othersFirst();
    }
  }
}

function fromRow(row: Omit<SecretUseRow, 'seq'> & { readonly seq: number; readonly sandbox_name: string | null }): ListedUse {
  return Object.freeze({
    seq: row.seq,
    at: row.at,
    teamId: row.team_id as TeamId,
    secretId: row.secret_id as SecretId,
    sandboxId: row.sandbox_id as SandboxId,
    sandboxName: row.sandbox_name,
    method: row.method,
    host: row.host,
    path: row.path,
    status: row.status,
    upstreamStatus: row.upstream_status,
    latencyMs: row.latency_ms,
    errorCode: row.error_code,
  });
}
