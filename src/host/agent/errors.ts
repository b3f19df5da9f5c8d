import { PaddockError, type ErrorCode, type ErrorDetail } from '../../core/errors.ts';

/** The agent's words for a failure (docs/agent-protocol.md) in the words of the core. */
const codes: Readonly<Record<string, ErrorCode>> = {
  bad_request: 'invalid_argument',
  not_found: 'not_found',
  user_not_found: 'invalid_argument',
  cwd_not_found: 'invalid_argument',
  is_directory: 'invalid_argument',
  not_directory: 'invalid_argument',
  not_regular: 'invalid_argument',
  exists: 'conflict',
  forbidden: 'permission_denied',
  no_space: 'no_space',
  stdin_closed: 'conflict',
  stdin_full: 'rate_limited',
  too_many: 'rate_limited',
  spawn_failed: 'unprocessable',
  connection_refused: 'not_listening',
};

/** An error answer of the agent, with its HTTP status. */
export class AgentRefusal extends PaddockError {
  readonly status: number;

  constructor(code: ErrorCode, message: string, status: number, detail: ErrorDetail = {}) {
    super(code, message, detail);
    this.name = 'AgentRefusal';
    this.status = status;
  }
}

/**
 * An error answer of the agent. Its message comes from inside the sandbox: bounded and without control characters.
 *
 * @param contentRange the header of that name, which tells a file's size where a range lies outside.
 */
export function fromAgentAnswer(status: number, body: string, contentRange = ''): AgentRefusal {
  let word = '';
  let message = '';
  try {
    const json = JSON.parse(body) as { code?: unknown; message?: unknown };
    word = typeof json.code === 'string' ? json.code : '';
    message = typeof json.message === 'string' ? json.message : '';
  } catch {
    // Judged by the status alone below.
  }
  // eslint-disable-next-line no-control-regex
  const text = message.replace(/[\u0000-\u001f\u007f]+/g, ' ').slice(0, 500);
  const code = codes[word];
  if (word === 'bad_range') {
    const fileBytes = /^bytes \*\/(\d{1,15})$/.exec(contentRange)?.[1];
    return new AgentRefusal('invalid_argument', text, status, { reason: 'range_not_satisfiable', ...(fileBytes === undefined ? {} : { fileBytes: Number(fileBytes) }) });
  }
  if (code !== undefined) return new AgentRefusal(code, text || `the sandbox refused: ${word}`, status);
  // Such as a read error of a disk that the guest has mounted itself.
  if (word === 'internal' && text !== '') return new AgentRefusal('unprocessable', text, status, { reason: 'guest_failed' });
  return new AgentRefusal('unprocessable', text || `the sandbox's agent answered with status ${status}`, status);
}

/**
 * A failed conversation with an agent. `sent` says whether the request may have had an effect: then the failure must not look
 * like one that a client repeats by itself.
 */
export function fromConversation(reason: unknown, sent: boolean): PaddockError {
  if (reason instanceof PaddockError) return reason;
  const text = reason instanceof Error ? reason.message : String(reason);
  return sent
    ? new PaddockError('unprocessable', `the connection into the sandbox broke before the answer: ${text}`, {}, { cause: reason })
    : new PaddockError('guest_unreachable', `the sandbox's agent cannot be reached: ${text}`, {}, { cause: reason });
}
