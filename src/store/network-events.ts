import { setImmediate as othersFirst } from 'node:timers/promises';
import type { Expression, ExpressionBuilder, Kysely, SqlBool } from 'kysely';
import type { SandboxId, TeamId } from '../core/ids.ts';
import type { ConnectionEvent, ConnectionVerdict } from '../core/network/egress.ts';
import type { ConnectionPage, ConnectionQuery, LoggedConnection, NetworkEventStore } from '../core/store.ts';
import { stored } from './fault.ts';
import type { NetworkEventRow, Schema } from './schema.ts';

/** Rows of one transaction: some milliseconds, and far below every database's limit of parameters. */
const rowsPerInsert = 200;
const purgedAtOnce = 1000;

/** Kept of one sandbox, and how many more it may have before they are counted again. */
const keptPerSandbox = 10_000;
const trimmedEvery = 1000;
const mostCounted = 10_000;

/** The network log. What guests wrote (names) is cut to what the columns are meant for. */
export class SqlNetworkEvents implements NetworkEventStore {
  readonly #db: Kysely<Schema>;
  readonly #keptPerSandbox: number;
  /** Inserted since the sandbox was last trimmed. */
  readonly #untrimmed = new Map<SandboxId, number>();

  /** @param bounds for tests. */
  constructor(db: Kysely<Schema>, bounds: { readonly keptPerSandbox?: number } = {}) {
    this.#db = db;
    this.#keptPerSandbox = bounds.keptPerSandbox ?? keptPerSandbox;
  }

  async append(events: readonly (ConnectionEvent & { readonly teamId: TeamId })[]): Promise<void> {
    for (let i = 0; i < events.length; i += rowsPerInsert) {
      // SQLite works in this thread: others shall have their turn.
      if (i > 0) await othersFirst();
      const part = events.slice(i, i + rowsPerInsert);
      await stored('write the network log', () => this.#db.insertInto('network_events').values(part.map(toRow)).execute());
      for (const { sandboxId } of part) this.#untrimmed.set(sandboxId, (this.#untrimmed.get(sandboxId) ?? trimmedEvery) + 1);
    }
    for (const sandboxId of new Set(events.map((event) => event.sandboxId))) {
      if ((this.#untrimmed.get(sandboxId) ?? 0) > trimmedEvery) await this.#trim(sandboxId);
    }
  }

  async list(teamId: TeamId, sandboxId: SandboxId, query: ConnectionQuery): Promise<ConnectionPage> {
    const rows = await stored('read the network log', () => {
      let page = this.#db.selectFrom('network_events').selectAll().where('sandbox_id', '=', sandboxId).where('team_id', '=', teamId);
      const { before, since, verdict } = query;
      if (verdict !== undefined) page = page.where('verdict', '=', verdict);
      if (since !== undefined) page = page.where('at', '>=', since);
      if (before?.seq === undefined) {
        if (before !== undefined) page = page.where('at', '<', before.at);
      } else {
        const { at, seq } = before;
        page = page.where('at', '<=', at).where((e) => e.or([e('at', '<', at), e('seq', '<', seq)]));
      }
      return page.orderBy('at', 'desc').orderBy('seq', 'desc').limit(query.limit + 1).execute();
    });
    return Object.freeze({ items: Object.freeze(rows.slice(0, query.limit).map(fromRow)), more: rows.length > query.limit });
  }

  async purge(before: number, keepNewest: number): Promise<number> {
    // Numbers grow, so the distance from the newest stands for the count: never too few are kept, and nothing is counted.
    const newest = await stored('read the network log', () => this.#db.selectFrom('network_events').select((e) => e.fn.max('seq').as('seq')).executeTakeFirst());
    const edge = (newest?.seq ?? 0) - keepNewest;
    const tooOld = await this.#delete((e) => e('at', '<', before));
    return tooOld + (await this.#delete((e) => e('seq', '<=', edge)));
  }

  async #trim(sandboxId: SandboxId): Promise<void> {
    if (this.#untrimmed.size > mostCounted) this.#untrimmed.clear();
    this.#untrimmed.set(sandboxId, 0);
    const oldestKept = await stored('read the network log', () =>
      this.#db
        .selectFrom('network_events')
        .select(['at', 'seq'])
        .where('sandbox_id', '=', sandboxId)
        .orderBy('at', 'desc')
        .orderBy('seq', 'desc')
        .offset(this.#keptPerSandbox - 1)
        .limit(1)
        .executeTakeFirst(),
    );
    if (oldestKept === undefined) return;
    const { at, seq } = oldestKept;
    await this.#delete((e) => e.and([e('sandbox_id', '=', sandboxId), e('at', '<=', at), e.or([e('at', '<', at), e('seq', '<', seq)])]));
  }

  /** In small steps, so that nothing else waits long. */
  async #delete(which: (e: ExpressionBuilder<Schema, 'network_events'>) => Expression<SqlBool>): Promise<number> {
    let deleted = 0;
    for (;;) {
      const result = await stored('purge the network log', () =>
        this.#db
          .deleteFrom('network_events')
          .where('seq', 'in', (e) => e.selectFrom('network_events').select('seq').where(which).limit(purgedAtOnce))
          .executeTakeFirst(),
      );
      const count = Number(result.numDeletedRows);
      deleted += count;
      if (count < purgedAtOnce) return deleted;
      await othersFirst();
    }
  }
}

function toRow(event: ConnectionEvent & { readonly teamId: TeamId }): Omit<NetworkEventRow, 'seq'> {
  return {
    at: event.at,
    team_id: event.teamId,
    sandbox_id: event.sandboxId,
    host: event.host?.slice(0, 255) ?? null,
    address: event.address,
    port: event.port,
    protocol: event.protocol,
    verdict: event.verdict,
    match_rule: event.matchRule,
    rule: event.rule,
    reason: event.reason.slice(0, 1000),
    bytes_sent: event.bytesSent,
    bytes_received: event.bytesReceived,
    duration_ms: Math.round(event.durationMs),
    count: event.count,
  };
}

function fromRow(row: Omit<NetworkEventRow, 'seq'> & { readonly seq: number }): LoggedConnection {
  return Object.freeze({
    seq: row.seq,
    sandboxId: row.sandbox_id as SandboxId,
    at: row.at,
    host: row.host,
    address: row.address,
    port: row.port,
    protocol: row.protocol as ConnectionEvent['protocol'],
    verdict: row.verdict as ConnectionVerdict,
    matchRule: row.match_rule,
    rule: row.rule,
    reason: row.reason,
    bytesSent: row.bytes_sent,
    bytesReceived: row.bytes_received,
    durationMs: row.duration_ms,
    count: row.count,
  });
}
