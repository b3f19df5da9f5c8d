import { PaddockError, type ErrorCode } from '../../core/errors.ts';

/** A failure in this wire's own words, where its contract has a code that the core does not know. */
export class SuperserveError extends Error {
  override readonly name = 'SuperserveError';
  readonly status: number;
  readonly code: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Shown beside code and message. */
  readonly extra: Readonly<Record<string, unknown>>;

  constructor(status: number, code: string, message: string, { headers = {}, extra = {}, cause }: { headers?: Record<string, string>; extra?: Record<string, unknown>; cause?: unknown } = {}) {
    super(message, { cause });
    this.status = status;
    this.code = code;
    this.headers = headers;
    this.extra = extra;
  }
}

/**
 * The one place where a failure of the core gets its status and code on this wire (contract, section 2.1). The SDK repeats GET and DELETE on
 * 429, 502, 503 and 504, and 401 and 503 of the data plane make it activate the sandbox: nothing else may have those.
 */
const table: Readonly<Record<ErrorCode, readonly [status: number, code: string]>> = Object.freeze({
  invalid_argument: [400, 'bad_request'],
  unauthenticated: [401, 'auth_failed'],
  insufficient_balance: [403, 'forbidden'],
  permission_denied: [403, 'forbidden'],
  not_found: [404, 'not_found'],
  deadline_exceeded: [408, 'deadline_exceeded'],
  conflict: [409, 'conflict'],
  template_not_ready: [409, 'conflict'],
  idempotency_in_progress: [409, 'conflict'],
  idempotency_key_reused: [409, 'conflict'],
  gone: [410, 'gone'],
  too_large: [413, 'too_large'],
  unprocessable: [422, 'unprocessable'],
  rate_limited: [429, 'rate_limited'],
  concurrency_limit: [429, 'too_many_sandboxes'],
  internal: [500, 'internal_error'],
  guest_unreachable: [502, 'sandbox_unreachable'],
  not_listening: [502, 'sandbox_unreachable'],
  no_capacity: [503, 'service_unavailable'],
  no_space: [507, 'sandbox_storage_full'],
});

/** Reasons of the core that this wire has a code of its own for. */
const reasonsThatAreCodes: ReadonlySet<string> = new Set(['secret_not_found', 'too_many_secrets', 'snapshot_not_ready', 'snapshot_in_progress', 'too_many_snapshots', 'too_many_snapshots_in_flight', 'too_many_builds', 'too_many_templates']);

/** What the table says for the errors of fastify and node:http, which have a status but no code of ours. */
const codeByStatus: Readonly<Record<number, ErrorCode>> = Object.freeze({ 404: 'not_found', 408: 'deadline_exceeded', 413: 'too_large' });

/** A failure as it goes out. */
export interface ErrorAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: { readonly error: { readonly code: string; readonly message: string } };
}

/** The answer to any thrown value. What nobody foresaw is a 500 that says only where to find its cause. */
export function answerTo(reason: unknown, requestId: string): ErrorAnswer {
  if (reason instanceof SuperserveError) {
    return { status: reason.status, headers: reason.headers, body: { error: { ...reason.extra, code: reason.code, message: reason.message } } };
  }
  const error = recognise(reason);
  const [status, usual] = table[error.code];
  const code = reasonsThatAreCodes.has(error.detail.reason ?? '') ? error.detail.reason! : usual;
  const headers: Record<string, string> = {};
  const retryAfter = error.detail.retryAfterSeconds ?? (status === 429 ? 1 : status === 502 ? 2 : undefined);
  if (retryAfter !== undefined) headers['retry-after'] = String(Math.ceil(retryAfter));
  const message = error.code === 'internal' ? `The server failed to answer this request. Its log has the reason under the request id ${requestId}.` : error.message;
  return { status, headers, body: { error: { code, message } } };
}

function recognise(reason: unknown): PaddockError {
  if (reason instanceof PaddockError) return reason;
  const status = (reason as { statusCode?: unknown } | null)?.statusCode;
  if (reason instanceof Error && typeof status === 'number' && status >= 400 && status < 500) {
    return new PaddockError(codeByStatus[status] ?? 'invalid_argument', reason.message, {}, { cause: reason });
  }
  return PaddockError.from(reason);
}

/** A value that a field may not have. */
export function badRequest(field: string, what: string): PaddockError {
  return new PaddockError('invalid_argument', `${field} ${what}`, { field });
}

/** For calls of the contract whose engine comes later: 422, which no client repeats and the SDKs show as it is. */
export function notAvailable(what: string): SuperserveError {
  return new SuperserveError(422, 'feature_disabled', `${what}: not available in this version of Paddock.`);
}
