import { setImmediate as othersFirst } from 'node:timers/promises';
import { sql, type Kysely } from 'kysely';
import type { SandboxId, TeamId } from '../core/ids.ts';
import type { EventCategory, EventQuery, EventStore, ListedEvent, PaddockEvent } from '../core/store.ts';
import { frozenJson, stored } from './fault.ts';
import type { EventRow, Schema } from './schema.ts';

/** Rows of one statement: seven values each stays far below every database's limit of parameters. */
const rowsPerInsert = 500;
const purgedAtOnce = 1000;

export class SqlEvents implements EventStore {
  readonly #db: Kysely<Schema>;

  constructor(db: Kysely<Schema>) {
    this.#db = db;
  }

  async append(events: readonly PaddockEvent[]): Promise<void> {
    if (events.length === 0) return;
    const rows = events.map((event) => ({
      at: event.at,
      team_id: event.teamId,
      sandbox_id: event.sandboxId,
      category: event.category,
      name: event.name,
      detail: JSON.stringify(event.detail),
    }));
    await stored('record events', () =>
      this.#db.transaction().execute(async (work) => {
        for (let i = 0; i < rows.length; i += rowsPerInsert) {
          await work.insertInto('events').values(rows.slice(i, i + rowsPerInsert)).execute();
        }
      }),
    );
  }

  async list(teamId: TeamId, sandboxId: SandboxId, limit: number): Promise<readonly PaddockEvent[]> {
    const rows = await stored('read events', () =>
      this.#db.selectFrom('events').selectAll().where('team_id', '=', teamId).where('sandbox_id', '=', sandboxId).orderBy('seq', 'desc').limit(limit).execute(),
    );
    return rows.reverse().map(fromRow);
  }

  async search(teamId: TeamId, query: EventQuery): Promise<{ readonly items: readonly ListedEvent[]; readonly total: number }> {
    const text = query.text?.toLowerCase();
    const matching = this.#db
      .selectFrom('events')
      .leftJoin('sandboxes', 'sandboxes.id', 'events.sandbox_id')
      .where('events.team_id', '=', teamId)
      .where('events.category', 'in', query.categories)
      .$if(query.from !== undefined, (q) => q.where('events.at', '>=', query.from!))
      .$if(query.until !== undefined, (q) => q.where('events.at', '<', query.until!))
      .$if(query.failed !== undefined, (q) => q.where(sql`substr(events.name, -7)`, query.failed! ? '=' : '<>', '_failed'))
      .$if(text !== undefined, (q) => q.where((e) => e.or([e(sql`instr(lower(events.name), ${text})`, '>', 0), e(sql`instr(lower(sandboxes.name), ${text})`, '>', 0)])));
    return stored('search the events', async () => {
      const { total } = await matching.select((e) => e.fn.countAll<number>().as('total')).executeTakeFirstOrThrow();
      const rows = await matching
        .selectAll('events')
        .select('sandboxes.name as sandbox_name')
        .orderBy('events.seq', query.descending ? 'desc' : 'asc')
        .limit(query.limit)
        .offset(query.offset)
        .execute();
      return { total: Number(total), items: rows.map((row) => Object.freeze({ ...fromRow(row), seq: row.seq, sandboxName: row.sandbox_name })) };
    });
  }

  async purge(before: number, keepNewest: number): Promise<number> {
    // Numbers grow without large holes, so the distance from the newest stands for the count, and nothing is counted.
    const newest = await stored('read events', () => this.#db.selectFrom('events').select((e) => e.fn.max('seq').as('seq')).executeTakeFirst());
    const edge = (newest?.seq ?? 0) - keepNewest;
    let purged = 0;
    for (;;) {
      const result = await stored('purge old events', () =>
        this.#db
          .deleteFrom('events')
          .where('seq', 'in', (e) =>
            e
              .selectFrom('events')
              .select('seq')
              .where((old) => old.or([old('at', '<', before), old('seq', '<=', edge)]))
              .limit(purgedAtOnce),
          )
          .executeTakeFirst(),
      );
      const count = Number(result.numDeletedRows);
      purged += count;
      if (count < purgedAtOnce) return purged;
      // SQLite works in this thread: others shall have their turn.
      await othersFirst();
    }
  }
}

function fromRow(row: Omit<EventRow, 'seq'>): PaddockEvent {
  return Object.freeze({
    at: row.at,
    teamId: row.team_id as TeamId,
    sandboxId: row.sandbox_id as SandboxId | null,
    category: row.category as EventCategory,
    name: row.name,
    detail: frozenJson<PaddockEvent['detail']>(row.detail),
  });
}
