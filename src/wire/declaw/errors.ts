import { PaddockError, type ErrorCode } from '../../core/errors.ts';

/**
 * The one place where a failure gets its status on this wire (contract, section 1.7). The SDKs repeat every 5xx, so a 5xx is only
 * for what had no effect; everything that would fail again in the same way is a 4xx.
 */
const statusByCode: Readonly<Record<ErrorCode, number>> = Object.freeze({
  invalid_argument: 400,
  unauthenticated: 401,
  insufficient_balance: 402,
  permission_denied: 403,
  not_found: 404,
  deadline_exceeded: 408,
  conflict: 409,
  template_not_ready: 409,
  idempotency_in_progress: 409,
  gone: 410,
  too_large: 413,
  unprocessable: 422,
  idempotency_key_reused: 422,
  rate_limited: 429,
  concurrency_limit: 429,
  internal: 500,
  guest_unreachable: 502,
  not_listening: 502,
  no_capacity: 503,
  no_space: 507,
});

/** What the table says for the errors of fastify and node:http, which have a status but no code of ours. */
const codeByStatus: Readonly<Record<number, ErrorCode>> = Object.freeze({ 404: 'not_found', 408: 'deadline_exceeded', 413: 'too_large' });

/** A failure as it goes out: always `message`, which every client reads, and the machine-readable `code`. */
export interface ErrorAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: { readonly message: string; readonly code: string };
}

/** Bytes of a stopped command's output that its error message repeats, per stream: the end, where the reason is. */
const partialOutputLimit = 16 * 1024;

/**
 * The answer to any thrown value. What nobody foresaw is a 500 whose message does not repeat the cause, only where to find it.
 */
export function answerTo(reason: unknown, requestId: string): ErrorAnswer {
  const error = recognise(reason);
  const headers: Record<string, string> = {};
  if (error.code === 'unauthenticated') headers['www-authenticate'] = 'Bearer';
  const retryAfter = error.detail.retryAfterSeconds ?? (error.code === 'idempotency_in_progress' || error.code === 'rate_limited' ? 1 : undefined);
  if (retryAfter !== undefined) headers['retry-after'] = String(Math.ceil(retryAfter));
  return { status: statusByCode[error.code], headers, body: { message: messageOf(error, requestId), code: error.code } };
}

function messageOf(error: PaddockError, requestId: string): string {
  if (error.code === 'internal') return `The server failed to answer this request. Its log has the reason under the request id ${requestId}.`;
  const partial = error.detail.partial;
  if (partial === undefined) return error.message;
  const sections = [error.message];
  if (partial.stdout !== '') sections.push(`--- stdout so far ---\n${lastPart(partial.stdout)}`);
  if (partial.stderr !== '') sections.push(`--- stderr so far ---\n${lastPart(partial.stderr)}`);
  return sections.join('\n');
}

function lastPart(text: string): string {
  return text.length <= partialOutputLimit ? text : `…${text.slice(-partialOutputLimit)}`;
}

function recognise(reason: unknown): PaddockError {
  if (reason instanceof PaddockError) return reason;
  const status = (reason as { statusCode?: unknown } | null)?.statusCode;
  if (reason instanceof Error && typeof status === 'number' && status >= 400 && status < 500) {
    return new PaddockError(codeByStatus[status] ?? 'invalid_argument', reason.message, {}, { cause: reason });
  }
  return PaddockError.from(reason);
}
