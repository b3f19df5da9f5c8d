/**
 * The closed set of things that can go wrong, in the words of the core. Each wire maps a code to its own status and
 * body in one table of its own; nothing else decides what a failure looks like to a client.
 */
export type ErrorCode =
  | 'invalid_argument' // the request is malformed or asks for something that cannot be
  | 'unauthenticated' // no valid key
  | 'insufficient_balance' // the wallet is empty
  | 'permission_denied' // a valid key that may not do this, or a limit of the account's tier
  | 'not_found' // no such object for this team
  | 'deadline_exceeded' // a command or request ran out of time; it has been ended
  | 'conflict' // the object's state does not allow it now
  | 'template_not_ready'
  | 'idempotency_in_progress'
  | 'idempotency_key_reused'
  | 'gone' // the sandbox has ended
  | 'too_large' // a body or file above its limit
  | 'unprocessable' // well-formed, but refused by the sandbox (spawn failed, no such user…)
  | 'rate_limited'
  | 'concurrency_limit' // too many sandboxes at once
  | 'no_space' // the sandbox's disk is full
  | 'guest_unreachable' // the agent does not answer and nothing has happened yet
  | 'not_listening' // no program listens on the port inside the sandbox
  | 'no_capacity' // this machine cannot take another sandbox now
  | 'internal';

/** Extra facts a wire may show: the field at fault, when to try again, what ended the sandbox. */
export interface ErrorDetail {
  readonly field?: string;
  readonly retryAfterSeconds?: number;
  readonly reason?: string;
  /** What a file has, when a part of it was asked for that it has not. */
  readonly fileBytes?: number;
  /** The sandbox has seen nothing of the request: it may be sent again. */
  readonly unsent?: true;
  /** Output that a command gave before it was ended. */
  readonly partial?: { readonly stdout: string; readonly stderr: string };
}

/** The only error that crosses a boundary between rooms. The message is for the user and says what to do. */
export class PaddockError extends Error {
  readonly code: ErrorCode;
  readonly detail: ErrorDetail;

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}, options?: ErrorOptions) {
    super(message, options);
    this.name = 'PaddockError';
    this.code = code;
    this.detail = detail;
  }

  /** Any thrown value as a PaddockError; what is not one already is `internal` and keeps its cause. */
  static from(reason: unknown): PaddockError {
    if (reason instanceof PaddockError) return reason;
    const text = reason instanceof Error ? reason.message : String(reason);
    return new PaddockError('internal', text, {}, { cause: reason });
  }
}
