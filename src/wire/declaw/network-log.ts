import { PaddockError } from '../../core/errors.ts';
import type { ConnectionEvent } from '../../core/network/egress.ts';
import type { Happening } from '../../core/networks.ts';
import type { ConnectionPage, ConnectionQuery, LoggedConnection, PaddockEvent } from '../../core/store.ts';
import type { Explanation } from '../../core/network/target.ts';

interface LogQuery {
  readonly limit?: number;
  readonly before?: string;
  readonly since?: string;
  readonly verdict?: 'allowed' | 'blocked' | 'failed';
}

const defaultLimit = 50;

/**
 * What `GET /sandboxes/{id}/network` asks for: `before` is the `next_cursor` of the page before, or a time like `since`.
 *
 * @throws PaddockError `invalid_argument` for what is neither.
 */
export function connectionQuery(query: LogQuery): ConnectionQuery {
  const { limit = defaultLimit, before, since, verdict } = query;
  return {
    limit,
    ...(verdict === undefined ? {} : { verdict }),
    ...(since === undefined ? {} : { since: parseTime('since', since) }),
    ...(before === undefined ? {} : { before: readCursor(before) ?? { at: parseTime('before', before) } }),
  };
}

/** The page as clients get it: newest first, fields that say nothing left out. */
export function presentPage(page: ConnectionPage): object {
  const last = page.items.at(-1);
  return { data: page.items.map(presentConnection), next_cursor: page.more && last !== undefined ? writeCursor(last) : null, has_more: page.more };
}

function presentConnection(event: LoggedConnection): object {
  return {
    kind: 'connection',
    id: event.seq,
    ts: new Date(event.at).toISOString(),
    ...(event.host === null ? {} : { host: event.host }),
    ...(event.address === null ? {} : { dst_ip: event.address }),
    dst_port: event.port,
    protocol: event.protocol,
    verdict: event.verdict,
    match_rule: event.matchRule,
    ...(event.rule === null ? {} : { rule: event.rule }),
    ...(event.reason === '' ? {} : { reason: event.reason }),
    bytes_sent: event.bytesSent,
    bytes_recv: event.bytesReceived,
    duration_ms: event.durationMs,
    ...(event.count === 1 ? {} : { count: event.count }),
  };
}

/** What a policy makes of a target. */
export function presentExplanation(target: string, explanation: Explanation): object {
  const { host, address, port, verdict, dials, notes } = explanation;
  return { target, host, address, port, verdict: verdict.allowed ? 'allowed' : 'blocked', match_rule: verdict.matchRule, rule: verdict.rule, reason: verdict.reason, dials, notes };
}

/** Names of this wire (contract, section 2.10) for events that the core calls otherwise. */
const eventNames: Readonly<Record<string, string>> = Object.freeze({
  created: 'vm_created',
  create_failed: 'vm_created_failed',
  undo_failed: 'vm_created_failed',
  ended: 'vm_killed',
  end_failed: 'vm_killed_failed',
});

/** One entry of `GET /sandboxes/{id}/audit`. Those of connections have the fields of the clients' `AuditEntry` as well. */
export function presentHappening(happening: Happening): object {
  return happening.kind === 'event' ? presentEvent(happening.event) : presentEgress(happening.connection);
}

function presentEvent({ at, category, name, detail }: PaddockEvent): object {
  const entry = { timestamp: new Date(at).toISOString(), category, event: eventNames[name] ?? name };
  return category === 'security' && 'guardrail' in detail ? { ...entry, ...presentGuarded(detail), detail } : { ...entry, detail };
}

/** The fields of the clients' `AuditEntry` for a request in which a guardrail found something. */
function presentGuarded({ guardrail, method, host, port, path, status, direction, outcome, blocked, count }: PaddockEvent['detail']): object {
  const counted = (name: string, counts: boolean): number => (guardrail === name && counts ? Number(count) : 0);
  return {
    method,
    url: `${port === 80 ? 'http' : 'https'}://${host}${port === 80 || port === 443 ? '' : `:${port}`}${path}`,
    status_code: status ?? 0,
    direction,
    pii_redactions: counted('pii', direction === 'outbound' && outcome === 'changed'),
    injection_blocks: guardrail === 'injection_defense' && blocked === true ? 1 : 0,
    transformations_applied: counted('transformations', true),
  };
}

/** What a proxy would have answered, since the clients want a status. */
const statusOf = Object.freeze({ allowed: 200, blocked: 403, failed: 502 });

function presentEgress(event: ConnectionEvent): object {
  return {
    timestamp: new Date(event.at).toISOString(),
    category: 'network',
    event: event.verdict === 'blocked' ? 'egress_blocked' : 'egress_allowed',
    method: event.protocol === 'dns' ? 'DNS' : 'CONNECT',
    url: `${event.host ?? event.address ?? ''}:${event.port}`,
    status_code: statusOf[event.verdict],
    direction: 'outbound',
    pii_redactions: 0,
    injection_blocks: 0,
    transformations_applied: 0,
    detail: { address: event.address, match_rule: event.matchRule, rule: event.rule, reason: event.reason, bytes_sent: event.bytesSent, bytes_recv: event.bytesReceived, count: event.count },
  };
}

/** A position in the log of one sandbox, which the reader may read anyway: nothing in it needs a seal. */
function writeCursor({ at, seq }: LoggedConnection): string {
  return Buffer.from(`${at}.${seq}`).toString('base64url');
}

function readCursor(text: string): { readonly at: number; readonly seq: number } | null {
  const match = /^(\d{1,15})\.(\d{1,15})$/.exec(Buffer.from(text, 'base64url').toString('latin1'));
  return match === null ? null : { at: Number(match[1]), seq: Number(match[2]) };
}

const rfc3339 = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;

function parseTime(field: string, text: string): number {
  // A plus sign that was not encoded arrives as a space.
  const time = text.replace(/ (\d\d:\d\d)$/, '+$1');
  const at = rfc3339.test(time) ? Date.parse(time.replace(' ', 'T')) : Number.NaN;
  if (Number.isNaN(at)) {
    const cursor = field === 'before' ? 'a next_cursor of the page before or ' : '';
    throw new PaddockError('invalid_argument', `${field} must be ${cursor}a time of RFC 3339 such as 2026-01-15T10:30:00Z, but is "${text.slice(0, 40)}".`, { field });
  }
  return at;
}
