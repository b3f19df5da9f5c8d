import { request as sendRequest, STATUS_CODES, type ClientRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { pipeline, type Duplex } from 'node:stream';
import { PaddockError } from '../core/errors.ts';
import type { PortTarget } from './data-plane.ts';
import { answerHeaders, requestHeaders } from './forwarded-headers.ts';

interface Forwarding {
  readonly request: IncomingMessage;
  /** Bytes to and from the program; belongs to this call from here on. */
  readonly tunnel: Duplex;
  /** The `Host` that the program is to see. */
  readonly host: string;
  readonly target: PortTarget;
  /** Instead of the target's. */
  readonly path?: string;
  readonly withhold: ReadonlySet<string>;
  /** Instead of the client's; null for none. */
  readonly cookie?: string | null;
  /** Lets the program set cookies. */
  readonly ownOrigin?: boolean;
  /** What the client's address begins with, when that is not what came here. */
  readonly publicScheme?: 'https';
}

/**
 * Sends a request through a tunnel and its answer back, both streamed with back-pressure. One request per tunnel.
 *
 * @throws PaddockError `not_listening` when the program does not answer with HTTP.
 */
export async function forwardRequest({ response, ...forwarding }: Forwarding & { readonly response: ServerResponse }): Promise<void> {
  const { request, tunnel } = forwarding;
  if (!tie(tunnel, response)) return;
  const upstream = openUpstream(forwarding, false);
  // Not stream.pipeline: a program may answer and close before it has read all, and its answer must still get out.
  request.pipe(upstream);
  const answer = await outcomeOf(upstream);
  if (answer instanceof Switch) throw new PaddockError('not_listening', 'The program on this port switched to another protocol without being asked.');
  request.once('error', () => tunnel.destroy());
  response.writeHead(answer.statusCode!, answer.statusMessage, answerHeaders(answer.rawHeaders, { cookies: forwarding.ownOrigin }));
  response.flushHeaders(); // streams of events begin long before their first byte
  await new Promise<void>((resolve, reject) => pipeline(answer, response, (error) => (error ? reject(error) : resolve())));
  request.unpipe(upstream);
  request.resume(); // what the program did not want
}

/** Hands a connection over to the program, when the program agrees to the other protocol; else sends its answer and closes. */
export async function forwardUpgrade({ socket, head, ...forwarding }: Forwarding & { readonly socket: Duplex; readonly head: Buffer }): Promise<void> {
  const { tunnel } = forwarding;
  if (!tie(tunnel, socket)) return;
  const upstream = openUpstream(forwarding, true);
  upstream.end();
  const outcome = await outcomeOf(upstream);
  if (!(outcome instanceof Switch)) {
    socket.write(answerHead(outcome, false, forwarding.ownOrigin));
    outcome.pipe(socket);
    outcome.once('error', () => socket.destroy());
    return;
  }
  socket.write(answerHead(outcome.answer, true, forwarding.ownOrigin));
  if (outcome.rest.length > 0) socket.write(outcome.rest);
  if (head.length > 0) tunnel.write(head);
  join(socket, tunnel);
}

/** Lets the tunnel live no longer than the client; false when the client has gone already. */
function tie(tunnel: Duplex, client: ServerResponse | Duplex): boolean {
  tunnel.on('error', () => tunnel.destroy()); // whoever waits hears of it in another way; unheard, it would end the server
  if (client.destroyed) tunnel.destroy();
  else client.once('close', () => tunnel.destroy());
  return !client.destroyed;
}

function openUpstream(forwarding: Forwarding, upgrade: boolean): ClientRequest {
  const { request, tunnel, host, target, path = target.path, withhold, cookie, publicScheme } = forwarding;
  const upstream = sendRequest({
    createConnection: () => tunnel,
    method: request.method!,
    path,
    setHost: false,
    headers: requestHeaders({ request, host, prefix: target.prefix, withhold, cookie, upgrade, publicScheme }),
  });
  upstream.on('error', () => tunnel.destroy()); // also after the answer has begun; who waits hears it too
  return upstream;
}

/** The program's agreement to another protocol, with the bytes that came right behind it. */
class Switch {
  readonly answer: IncomingMessage;
  readonly rest: Buffer;
  constructor(answer: IncomingMessage, rest: Buffer) {
    this.answer = answer;
    this.rest = rest;
  }
}

function outcomeOf(upstream: ClientRequest): Promise<IncomingMessage | Switch> {
  const noAnswer = (why: string, cause?: Error): PaddockError => new PaddockError('not_listening', `The program on this port gave no HTTP answer: ${why}.`, {}, { cause });
  return new Promise((resolve, reject) => {
    upstream.once('response', resolve);
    upstream.once('upgrade', (answer, _socket, rest) => resolve(new Switch(answer, rest)));
    upstream.once('error', (error) => reject(noAnswer(error.message, error)));
    upstream.once('close', () => reject(noAnswer('it closed the connection')));
  });
}

function answerHead(answer: IncomingMessage, agreed: boolean, cookies = false): string {
  const status = answer.statusCode!;
  const lines = [`HTTP/1.1 ${status} ${answer.statusMessage || STATUS_CODES[status] || ''}`];
  const headers = answerHeaders(answer.rawHeaders, { upgrade: agreed, cookies });
  for (let i = 0; i < headers.length; i += 2) lines.push(`${headers[i]}: ${headers[i + 1]}`);
  if (!agreed) lines.push('Connection: close'); // the body ends with the connection, whatever its framing was
  return `${lines.join('\r\n')}\r\n\r\n`;
}

/** Bytes both ways, each direction closed by itself; when one end is gone, so is the other. */
function join(one: Duplex, other: Duplex): void {
  one.pipe(other).pipe(one);
  other.once('close', () => one.destroy());
  other.on('error', () => one.destroy());
}
