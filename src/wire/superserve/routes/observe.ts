import { PaddockError } from '../../../core/errors.ts';
import type { SandboxRef } from '../../../core/ids.ts';
import type { ConnectionVerdict } from '../../../core/network/egress.ts';
import type { LogQuery } from '../../../core/networks.ts';
import type { Principal } from '../../../core/principal.ts';
import type { ListedUse } from '../../../core/secrets/secret.ts';
import type { EventCategory, EventQuery, ListedEvent, LoggedConnection } from '../../../core/store.ts';
import { callerSignal } from '../../caller.ts';
import { cursorOf, positionOf } from '../cursor.ts';
import type { RouteDependencies, Scope } from '../dependencies.ts';
import { explained } from '../data-plane-errors.ts';
import { badRequest } from '../errors.ts';
import { readPath } from '../file-paths.ts';
import { parseId } from '../ids.ts';
import { choice, parsePage, single, type RawQuery } from '../list-query.ts';
import { parseTime } from '../times.ts';
import { statusOf } from '../status.ts';
import { withItsFiles } from './lifecycle.ts';
import { notFound, SandboxParams } from './sandboxes.ts';

const defaultNetworkLimit = 50;
const mostNetworkRows = 1000;
const defaultActivityLimit = 200;

/** Looking without changing: the network log, directories, and what happened in the team (contract, sections 4.8, 4.10 and 13). */
export function observeRoutes(app: Scope, { networks, events, files, sandboxes }: RouteDependencies): void {
  app.get('/sandboxes/:id/network', { schema: { params: SandboxParams } }, async (request) => {
    const raw = request.query as RawQuery;
    const [before, since] = [single(raw, 'before'), single(raw, 'since')];
    const verdict = choice(raw, 'verdict', ['', 'allowed', 'blocked', 'failed'] as const, '');
    const sandbox = await sandboxes.get(request.principal, parseId(request.params.id));
    if (statusOf(sandbox) === 'deleted') throw notFound(request.params.id);
    const query = {
      limit: networkLimit(single(raw, 'limit')),
      ...(since ? { since: parseTime('since', since) } : {}),
      ...(before ? { before: positionOf(before) ?? { at: parseTime('before', before, 'a next_cursor of the page before or ') } } : {}),
    };
    if (verdict !== '') return connectionsOnly(request.principal, parseId(request.params.id), verdict, query);
    const { items, next } = await networks.log(request.principal, parseId(request.params.id), query);
    return { data: items.map((each) => (each.kind === 'connection' ? presentConnection(each.connection) : presentRequest(each.use))), next_cursor: next === null ? null : cursorOf(next), has_more: next !== null };
  });

  /** Verdicts are about connections. */
  async function connectionsOnly(principal: Principal, ref: SandboxRef, verdict: ConnectionVerdict, { before, ...query }: LogQuery): Promise<object> {
    const place = before === undefined || 'at' in before ? before : (before.connection ?? undefined);
    const page = await networks.connections(principal, ref, { ...query, verdict, ...(place === undefined ? {} : { before: place }) });
    const last = page.items.at(-1);
    return { data: page.items.map(presentConnection), next_cursor: page.more && last !== undefined ? cursorOf({ connection: last, request: null }) : null, has_more: page.more };
  }

  app.get('/sandboxes/:id/files', { schema: { params: SandboxParams } }, async (request, reply) => {
    const path = readPath(single(request.query as RawQuery, 'path') || '/');
    const ref = parseId(request.params.id);
    const signal = callerSignal(reply);
    await withItsFiles(sandboxes.activate(request.principal, ref));
    try {
      const { entries } = await files.list(request.principal, ref, path, undefined, 1, signal);
      return {
        entries: entries.map((entry) => ({ name: entry.name, is_dir: entry.type === 'dir' || entry.targetType === 'dir', size: entry.size, modified_unix: Math.floor(entry.modifiedAt / 1000) })),
      };
    } catch (thrown) {
      const error = await explained(sandboxes, ref.id, thrown);
      throw error instanceof PaddockError && error.code === 'not_found' ? new PaddockError('not_found', 'folder not found') : error;
    }
  });

  app.get('/activity', async (request, reply) => {
    const query = activityQuery(request.query as RawQuery);
    const { items, total } = query.categories.length === 0 ? { items: [], total: 0 } : await events.search(request.principal.teamId, query);
    return reply.header('x-total-count', total).send(items.map(presentActivity));
  });
}

function networkLimit(text: string | undefined): number {
  if (!text) return defaultNetworkLimit;
  const limit = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (limit < 1) throw badRequest('limit', `must be a whole number from 1 to ${mostNetworkRows}, but is "${text.slice(0, 40)}"`);
  return Math.min(limit, mostNetworkRows);
}

function presentConnection(event: LoggedConnection): object {
  return {
    kind: 'connection',
    id: event.seq,
    ts: new Date(event.at).toISOString(),
    ...(event.host === null ? {} : { host: event.host }),
    ...(event.address === null ? {} : { dst_ip: event.address }),
    dst_port: event.port,
    verdict: event.verdict,
    match_rule: event.matchRule,
    ...(event.reason === '' ? {} : { reason: event.reason }),
    bytes_sent: event.bytesSent,
    bytes_recv: event.bytesReceived,
  };
}

/** A request in which a secret played a part. */
function presentRequest(use: ListedUse): object {
  return {
    kind: 'request',
    id: use.seq,
    ts: new Date(use.at).toISOString(),
    host: use.host,
    method: use.method,
    path: use.path,
    status: use.status,
    ...(use.upstreamStatus === null ? {} : { upstream_status: use.upstreamStatus }),
    latency_ms: use.latencyMs,
    secret_id: use.secretId,
    ...(use.errorCode === null ? {} : { error_code: use.errorCode }),
  };
}

/** Commands and file operations are too many for a list of what happened; the audit log has them. */
const categories = {
  sandbox: ['lifecycle', 'admin', 'snapshot'],
  template: ['template'],
  secret: ['security'],
  network: ['network'],
} as const satisfies Readonly<Record<string, readonly EventCategory[]>>;
type Category = keyof typeof categories;

function activityQuery(raw: RawQuery): EventQuery {
  const category = choice(raw, 'category', ['', 'sandbox', 'template', 'secret', 'network'] as const, '');
  const status = choice(raw, 'status', ['', 'success', 'error'] as const, '');
  choice(raw, 'sort', ['created_at'] as const, 'created_at');
  const [text, start, end] = [single(raw, 'q'), single(raw, 'start'), single(raw, 'end')];
  const { limit, offset } = parsePage(raw);
  return {
    categories: category === '' ? Object.values(categories).flat() : categories[category],
    ...(text ? { text } : {}),
    ...(start ? { from: parseTime('start', start) } : {}),
    ...(end ? { until: parseTime('end', end) } : {}),
    ...(status === '' ? {} : { failed: status === 'error' }),
    descending: choice(raw, 'order', ['desc', 'asc'] as const, 'desc') === 'desc',
    limit: limit ?? defaultActivityLimit,
    offset,
  };
}

function presentActivity(event: ListedEvent): object {
  const { durationMs, message, code, secretId, secretName, templateId, ...metadata } = event.detail;
  const failed = event.name.endsWith('_failed');
  return {
    id: String(event.seq),
    ...(event.sandboxId === null ? {} : { sandbox_id: event.sandboxId }),
    category: categoryOf(event.category),
    action: event.name,
    status: failed ? 'error' : 'success',
    ...(typeof templateId === 'string' ? { template_id: templateId } : {}),
    ...(event.sandboxName ? { sandbox_name: event.sandboxName } : {}),
    ...(typeof secretId === 'string' ? { secret_id: secretId } : {}),
    ...(typeof secretName === 'string' ? { secret_name: secretName } : {}),
    ...(typeof durationMs === 'number' ? { duration_ms: durationMs } : {}),
    ...(failed ? { error: [code, message].filter((each) => typeof each === 'string').join(': ') } : {}),
    metadata,
    created_at: new Date(event.at).toISOString(),
  };
}

function categoryOf(category: EventCategory): Category {
  return (Object.keys(categories) as Category[]).find((each) => (categories[each] as readonly EventCategory[]).includes(category)) ?? 'sandbox';
}
