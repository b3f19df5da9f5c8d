import type { Clock } from './clock.ts';
import { goneError, unusable } from './ended.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { Host } from './host.ts';
import type { SandboxId, SandboxRef, TeamId } from './ids.ts';
import type { ConnectionEvent } from './network/egress.ts';
import type { Measures } from './measures.ts';
import type { NetworkPolicy } from './network/rules.ts';
import { explain, type Explanation } from './network/target.ts';
import type { Principal } from './principal.ts';
import type { Declared, PreviewAccess, Sandbox } from './sandbox.ts';
import type { Sandboxes } from './sandboxes.ts';
import type { CoreSettings } from './settings.ts';
import type { ListedUse } from './secrets/secret.ts';
import type { ConnectionPage, ConnectionQuery, LoggedConnection, PaddockEvent, Store } from './store.ts';

interface NetworksDeps {
  readonly sandboxes: Sandboxes;
  readonly store: Store;
  readonly host: Host;
  readonly clock: Clock;
  readonly events: EventLog;
  readonly settings: CoreSettings;
  readonly measures?: Measures | undefined;
}

/** What a replacement asks for. */
export interface NetworkReplacement {
  readonly network: NetworkPolicy;
  /** What the sandbox is said to have asked for from now on; made from what it was said before. */
  readonly declare: (before: Declared) => Declared;
}

/** One row of everything that went out of a sandbox: connections, and requests in which a secret played a part. */
export type LogEntry = { readonly kind: 'connection'; readonly at: number; readonly connection: LoggedConnection } | { readonly kind: 'request'; readonly at: number; readonly use: ListedUse };

/** Where a page of both ended; null where nothing of that kind has come yet. */
export interface LogPosition {
  readonly connection: { readonly at: number; readonly seq: number } | null;
  readonly request: { readonly at: number; readonly seq: number } | null;
}

export interface LogQuery {
  readonly limit: number;
  readonly since?: number;
  /** A position, or a time. */
  readonly before?: LogPosition | { readonly at: number };
}

/** One thing that happened to a sandbox, of either log. */
export type Happening = { readonly kind: 'event'; readonly at: number; readonly event: PaddockEvent } | { readonly kind: 'connection'; readonly at: number; readonly connection: ConnectionEvent };

const longestList = 1000;
const mostRememberedTeams = 10_000;

/** What sandboxes may reach and did reach: rules at run time, their explanation, and the log of connections. */
export class Networks {
  readonly #deps: NetworksDeps;
  /** The last replacement of each sandbox that is under way: the next one waits for it. */
  readonly #replacing = new Map<SandboxId, Promise<unknown>>();
  /** Whose the sandboxes are; never changes. */
  readonly #teams = new Map<SandboxId, TeamId>();

  /** Must be made before the sandboxes are started: what happened while no server ran is told at once. */
  constructor(deps: NetworksDeps) {
    this.#deps = deps;
    deps.host.onConnections((events) => this.#record(events));
    deps.sandboxes.onEnd((id) => this.#teams.delete(id));
  }

  /**
   * Replaces the outbound rules of a running sandbox: in force and durable when this resolves, as they were when it rejects. Two at once are
   * carried out one after the other.
   */
  async replace(principal: Principal, ref: SandboxRef, replacement: NetworkReplacement): Promise<Sandbox> {
    return this.#inTurn(principal, ref, (id) => this.#replace(principal, id, replacement));
  }

  /** Who may open published ports, from now on; also of a sandbox that does not run. */
  async setPreviews(principal: Principal, ref: SandboxRef, previews: PreviewAccess): Promise<Sandbox> {
    return this.#inTurn(principal, ref, async (id) => {
      const { sandboxes, store, events } = this.#deps;
      for (;;) {
        const sandbox = await sandboxes.get(principal, { id });
        if (sandbox.end !== null) throw goneError(sandbox.end);
        const changed = await store.sandboxes.transition(id, [sandbox.state], sandbox.state, { policy: { ...sandbox.policy, previews } });
        if (changed === null) continue; // it went on to another state meanwhile
        events.ofSandbox(changed, 'admin', 'previews_changed', { access: previews });
        return changed;
      }
    });
  }

  async #inTurn(principal: Principal, ref: SandboxRef, work: (id: SandboxId) => Promise<Sandbox>): Promise<Sandbox> {
    const { id } = await this.#deps.sandboxes.get(principal, ref);
    const before = this.#replacing.get(id);
    const replacing = (before ?? Promise.resolve()).catch(() => undefined).then(() => work(id));
    this.#replacing.set(id, replacing);
    try {
      return await replacing;
    } finally {
      if (this.#replacing.get(id) === replacing) this.#replacing.delete(id);
    }
  }

  /** The host first: a crash in between leaves the row, and the next start puts in force what that says. */
  async #replace(principal: Principal, id: SandboxId, { network, declare }: NetworkReplacement): Promise<Sandbox> {
    const { sandboxes, store, host, events } = this.#deps;
    const sandbox = await sandboxes.get(principal, { id });
    const reason = unusable(sandbox);
    if (reason !== null) throw reason;
    const declared = declare(sandbox.declared);
    this.#assertDeclarable(declared);
    await this.#putInForce(sandbox, network);
    let changed: Sandbox | null;
    try {
      changed = await store.sandboxes.transition(id, ['running'], 'running', { policy: { ...sandbox.policy, network }, declared });
    } catch (error) {
      await host.setNetwork(id, sandbox.policy.network).catch((failed: unknown) => {
        events.ofSandbox(sandbox, 'admin', 'network_restore_failed', { message: PaddockError.from(failed).message });
      });
      throw error;
    }
    if (changed === null) throw unusable(await sandboxes.get(principal, { id })) ?? new PaddockError('conflict', 'the sandbox changed meanwhile; try again');
    events.ofSandbox(changed, 'admin', 'network_changed', { allow: network.allow.length, deny: network.deny.length });
    return changed;
  }

  async #putInForce(sandbox: Sandbox, network: NetworkPolicy): Promise<void> {
    try {
      await this.#deps.host.setNetwork(sandbox.id, network);
    } catch (error) {
      throw await this.#deps.sandboxes.explain(sandbox, error);
    }
  }

  #assertDeclarable(declared: Declared): void {
    const bytes = Buffer.byteLength(JSON.stringify(declared));
    const limit = this.#deps.settings.maxDeclaredBytes;
    if (bytes > limit) throw new PaddockError('invalid_argument', `network and security take ${bytes} bytes together; the limit is ${limit}`, { field: 'network' });
  }

  /** What the sandbox's rules make of a URL, host or address. Also for one that has ended. */
  async explain(principal: Principal, ref: SandboxRef, target: string): Promise<Explanation> {
    return explain((await this.#deps.sandboxes.get(principal, ref)).policy.network, target);
  }

  /** The log of a sandbox, also of one that has ended. Newest first. */
  async connections(principal: Principal, ref: SandboxRef, query: ConnectionQuery): Promise<ConnectionPage> {
    assertLimit(query.limit);
    const sandbox = await this.#deps.sandboxes.get(principal, ref);
    return this.#deps.store.networkEvents.list(sandbox.teamId, sandbox.id, query);
  }

  /** Connections and requests of a sandbox in one list, also of one that has ended. Newest first. */
  async log(principal: Principal, ref: SandboxRef, { limit, since, before }: LogQuery): Promise<{ readonly items: readonly LogEntry[]; readonly next: LogPosition | null }> {
    assertLimit(limit);
    const { id, teamId } = await this.#deps.sandboxes.get(principal, ref);
    const position: LogPosition = before !== undefined && !('at' in before) ? before : { connection: null, request: null };
    const until = (place: LogPosition['connection']) => place ?? (before !== undefined && 'at' in before ? before : undefined);
    const query = (place: LogPosition['connection']) => {
      const end = until(place);
      return { limit: limit + 1, ...(since === undefined ? {} : { since }), ...(end === undefined ? {} : { before: end }) };
    };
    const [connections, uses] = await Promise.all([
      this.#deps.store.networkEvents.list(teamId, id, query(position.connection)),
      this.#deps.store.secretUses.ofSandbox(teamId, id, query(position.request)),
    ]);
    const all = [
      ...connections.items.map((connection): LogEntry => ({ kind: 'connection', at: connection.at, connection })),
      ...uses.map((use): LogEntry => ({ kind: 'request', at: use.at, use })),
    ].sort((a, b) => b.at - a.at); // stable: each keeps its order
    const items = all.slice(0, limit);
    const connection = items.findLast((each) => each.kind === 'connection')?.connection ?? position.connection;
    const request = items.findLast((each) => each.kind === 'request')?.use ?? position.request;
    return { items, next: all.length > limit ? { connection, request } : null };
  }

  /** The newest of everything that happened to a sandbox, oldest first; connections only if its audit is on. */
  async audit(principal: Principal, ref: SandboxRef, limit: number): Promise<readonly Happening[]> {
    assertLimit(limit);
    const { store, events } = this.#deps;
    const sandbox = await this.#deps.sandboxes.get(principal, ref);
    await events.flush();
    const happened = await store.events.list(sandbox.teamId, sandbox.id, limit);
    const connected = sandbox.policy.audit ? (await store.networkEvents.list(sandbox.teamId, sandbox.id, { limit })).items : [];
    return [
      ...happened.map((event): Happening => ({ kind: 'event', at: event.at, event })),
      ...connected.toReversed().map((connection): Happening => ({ kind: 'connection', at: connection.at, connection })),
    ]
      .sort((a, b) => a.at - b.at)
      .slice(-limit);
  }

  async #record(events: readonly ConnectionEvent[]): Promise<void> {
    const owned: (ConnectionEvent & { readonly teamId: TeamId })[] = [];
    for (const event of events) {
      const teamId = await this.#teamOf(event.sandboxId);
      // None for a create that failed: nobody can ask for its log.
      if (teamId !== null) owned.push({ ...event, teamId });
    }
    await this.#deps.store.networkEvents.append(owned);
    for (const { verdict, matchRule, count } of events) this.#deps.measures?.connections(verdict, matchRule, count);
  }

  async #teamOf(id: SandboxId): Promise<TeamId | null> {
    const known = this.#teams.get(id);
    if (known !== undefined) return known;
    const teamId = (await this.#deps.store.sandboxes.find(null, { id }))?.teamId ?? null;
    if (teamId !== null) {
      if (this.#teams.size >= mostRememberedTeams) this.#teams.clear();
      this.#teams.set(id, teamId);
    }
    return teamId;
  }
}

function assertLimit(limit: number): void {
  if (!Number.isInteger(limit) || limit < 1 || limit > longestList) {
    throw new PaddockError('invalid_argument', `limit must be from 1 to ${longestList}, not ${limit}`, { field: 'limit' });
  }
}
