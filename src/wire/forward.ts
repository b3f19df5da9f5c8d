import { request as sendRequest, STATUS_CODES, type ClientRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { pipeline, type Duplex } from 'node:stream';
import { PaddockError } from '../core/errors.ts';
import type { PortTarget } from './data-plane.ts';
import { answerHeaders, requestHeaders } from './forwarded-headers.ts';

interface Forwarding {
  readonly request: IncomingMessage;
  /** Bytes to and from the program; belongs to this call from here on. */
  readonly tunnel: Duplex;
  readonly port: number;
  readonly target: PortTarget;
  readonly withhold: ReadonlySet<string>;
}

/**
 * Sends a request through a tunnel and its answer back, both streamed with back-pressure. One request per tunnel.
 *
 * @throws PaddockError `not_listening` when the program does not answer with HTTP.
 */
export async function forwardRequest({ response, ...forwarding }: Forwarding & { readonly response: ServerResponse }): Promise<void> {
  const { request, tunnel } = forwarding;
  const upstream = openUpstream(forwarding, false);
  // Not stream.pipeline: a program may answer and close before it has read all, and its answer must still get out.
  request.pipe(upstream);
  response.once('close', () => tunnel.destroy());
  const answer = await answerOf(upstream);
  request.once('error', () => tunnel.destroy());
  response.writeHead(answer.statusCode!, answer.statusMessage, answerHeaders(answer.rawHeaders));
  response.flushHeaders(); // streams of events begin long before their first byte
  await new Promise<void>((resolve, reject) => pipeline(answer, response, (error) => (error ? reject(error) : resolve())));
  request.unpipe(upstream);
  request.resume(); // what the program did not want
}

/** Hands a connection over to the program, when the program agrees to the other protocol; else sends its answer and closes. */
export async function forwardUpgrade({ socket, head, ...forwarding }: Forwarding & { readonly socket: Duplex; readonly head: Buffer }): Promise<void> {
  const { tunnel } = forwarding;
  socket.once('close', () => tunnel.destroy());
  const upstream = openUpstream(forwarding, true);
  upstream.end();
  const outcome = await Promise.race([switched(upstream), answerOf(upstream)]);
  const { answer, rest } = 'answer' in outcome ? outcome : { answer: outcome, rest: null };
  socket.write(head101(answer));
  if (rest === null) {
    await finished(answer, socket);
    return;
  }
  if (rest.length > 0) socket.write(rest);
  if (head.length > 0) tunnel.write(head);
  await Promise.all([finished(socket, tunnel), finished(tunnel, socket)]);
}

function openUpstream(forwarding: Forwarding, upgrade: boolean): ClientRequest {
  const { request, tunnel, port, target, withhold } = forwarding;
  const upstream = sendRequest({
    createConnection: () => tunnel,
    method: request.method!,
    path: target.path,
    setHost: false,
    headers: requestHeaders({ request, port, prefix: target.prefix, withhold, upgrade }),
  });
  upstream.on('error', () => tunnel.destroy()); // also after the answer has begun; who waits hears it too
  return upstream;
}

function answerOf(upstream: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    upstream.once('response', resolve);
    upstream.once('error', (cause) => reject(new PaddockError('not_listening', `The program on this port closed the connection or does not speak HTTP: ${cause.message}.`, {}, { cause })));
  });
}

function switched(upstream: ClientRequest): Promise<{ answer: IncomingMessage; rest: Buffer }> {
  return new Promise((resolve) => {
    upstream.once('upgrade', (answer, _socket, rest) => resolve({ answer, rest }));
  });
}

function head101(answer: IncomingMessage): string {
  const status = answer.statusCode!;
  const agreed = status === 101;
  const lines = [`HTTP/1.1 ${status} ${answer.statusMessage || STATUS_CODES[status] || ''}`];
  const headers = answerHeaders(answer.rawHeaders, agreed);
  for (let i = 0; i < headers.length; i += 2) lines.push(`${headers[i]}: ${headers[i + 1]}`);
  if (!agreed) lines.push('Connection: close'); // the body ends with the connection, whatever its framing was
  return `${lines.join('\r\n')}\r\n\r\n`;
}

function finished(from: NodeJS.ReadableStream, to: NodeJS.WritableStream): Promise<void> {
  // How a taken-over connection ends is the business of its two ends.
  return new Promise((resolve) => pipeline(from, to, () => resolve()));
}
