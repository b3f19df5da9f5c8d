import { request, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { pipeline } from 'node:stream/promises';
import type { Readable } from 'node:stream';

export interface CallOptions {
  /** Sent as JSON. */
  readonly json?: unknown;
  /** Sent as it is. */
  readonly body?: string | Uint8Array | Readable;
  readonly headers?: Readonly<Record<string, string>>;
  /** Null sends no key. */
  readonly key?: string | null;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly bytes: Buffer;
  readonly text: string;
  /** The body as JSON; throws when it is none. Fields are the test's business. */
  readonly json: any;
}

/** One request on a connection of its own, nothing added, nothing retried; the path goes out as written. */
export async function call(base: string, method: string, path: string, options: CallOptions = {}): Promise<Answer> {
  const message = await open(base, method, path, options);
  const chunks: Buffer[] = [];
  for await (const chunk of message) chunks.push(chunk as Buffer);
  const bytes = Buffer.concat(chunks);
  return {
    status: message.statusCode ?? 0,
    headers: message.headers,
    bytes,
    get text() {
      return bytes.toString('utf8');
    },
    get json() {
      try {
        return JSON.parse(bytes.toString('utf8'));
      } catch (cause) {
        throw new Error(`${method} ${path} answered ${message.statusCode} with no JSON: ${bytes.toString('utf8', 0, 500)}`, { cause });
      }
    },
  };
}

/** The same, resolving to the answer before its body has been read. */
export function open(base: string, method: string, path: string, options: CallOptions = {}): Promise<IncomingMessage> {
  const { hostname, port } = new URL(base);
  const body = options.json === undefined ? options.body : JSON.stringify(options.json);
  const headers: Record<string, string> = {
    ...(options.key == null ? {} : { authorization: `Bearer ${options.key}` }),
    ...(options.json === undefined ? {} : { 'content-type': 'application/json' }),
    ...options.headers,
  };
  if (typeof body === 'string' || body instanceof Uint8Array) headers['content-length'] ??= String(Buffer.byteLength(body));
  return new Promise((resolve, reject) => {
    const signals = [AbortSignal.timeout(options.timeoutMs ?? 60_000), ...(options.signal ? [options.signal] : [])];
    const outgoing = request({ hostname, port, method, path, headers, agent: false, signal: AbortSignal.any(signals) });
    let answered = false;
    outgoing.on('response', (message) => {
      answered = true;
      resolve(message);
    });
    outgoing.on('error', (reason) => {
      if (!answered) reject(new Error(`${method} ${path}: ${reason.message}`, { cause: reason }));
    });
    if (body === undefined) outgoing.end();
    else if (typeof body === 'string' || body instanceof Uint8Array) outgoing.end(body);
    // The server may answer before it has read everything: what matters is the answer.
    else pipeline(body, outgoing).catch((reason: Error) => answered || reject(reason));
  });
}

export interface ServerSentEvent {
  readonly event: string;
  readonly data: any;
}

/** Reads an event stream: events as they come, and comments through `onComment`. Strict about the format the clients need. */
export async function* eventsOf(message: IncomingMessage, onComment: (text: string) => void = () => {}): AsyncGenerator<ServerSentEvent, void, void> {
  let buffer = '';
  for await (const chunk of message.setEncoding('utf8')) {
    buffer += chunk as string;
    if (buffer.includes('\r')) throw new Error('the stream has a carriage return: the PTY parser of the SDK does not understand it');
    for (let end = buffer.indexOf('\n\n'); end >= 0; end = buffer.indexOf('\n\n')) {
      const frame = buffer.slice(0, end);
      buffer = buffer.slice(end + 2);
      if (frame.startsWith(':')) {
        onComment(frame);
        continue;
      }
      const match = /^event: (\S+)\ndata: (.*)$/.exec(frame);
      if (match === null) throw new Error(`not one event line and one data line: ${JSON.stringify(frame.slice(0, 200))}`);
      yield { event: match[1] ?? '', data: JSON.parse(match[2] ?? '') };
    }
  }
  if (buffer !== '') throw new Error(`the stream ended in the middle of an event: ${JSON.stringify(buffer.slice(0, 200))}`);
}

/** All that an iterable gives, once it has ended. */
export async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of source) items.push(item);
  return items;
}
