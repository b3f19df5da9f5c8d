import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import type { Connection } from '../connection.ts';
import { Refusal, type BodyFilter, type ResponseHead, type Stage } from '../pipeline/stage.ts';
import { pump } from '../splice.ts';
import { type Answer, type ExchangePlace, JudgedRequest } from './exchange.ts';
import type { BodySink } from './front.ts';
import { hasHeader, headerPairs, headerValues } from './headers.ts';
import { openHttp1, replyOf } from './http1-upstream.ts';
import { endWith } from './blocked-page.ts';
import { formatAddress } from '../../core/network/addresses.ts';

const upgrading = ['Connection', 'Upgrade', 'Upgrade', 'websocket'];

interface UpgradeRequest {
  readonly request: IncomingMessage;
  readonly client: Socket;
  /** What the client has sent behind its request. */
  readonly head: Buffer;
}

/** A request that leaves HTTP for a WebSocket: judged and changed as every other one, and then bytes are passed on both ways. Never throws. */
export async function serveUpgrade({ request, client, head }: UpgradeRequest, connection: Connection, place: ExchangePlace): Promise<void> {
  const judged = new JudgedRequest();
  const started = { at: Date.now(), performance: performance.now() };
  const front = { method: request.method ?? 'GET', url: request.url ?? '', headers: request.rawHeaders, http2: false };
  const record = ({ status, verdict, code, reason }: Answer, upstreamStatus: number | null): void => {
    const { name = null, address = null } = judged.destination ?? {};
    const host = name ?? (address === null ? '' : formatAddress(address));
    const durationMs = Math.round(performance.now() - started.performance);
    place.record({ at: started.at, method: front.method, host, port: place.port, path: judged.path, status, upstreamStatus, durationMs, bytesSent: 0, bytesReceived: 0, verdict, errorCode: code, reason }, judged.stages);
  };
  const answer = new UpgradeAnswer(client, connection);
  const refuse = (reason: unknown): void => {
    if (!client.destroyed) record(place.refuse(answer, judged.destination, reason), null);
  };
  if (hasHeader(request.rawHeaders, 'transfer-encoding') || headerValues(request.rawHeaders, 'content-length').some((length) => length !== '0')) {
    // A server that does not change the protocol would take what comes next for the body.
    return refuse(new Refusal(400, 'ambiguous_request', 'A request to change the protocol must not have a body.'));
  }
  client.on('error', () => {});
  try {
    const sent = await judged.head(front, place);
    const upstream = openHttp1(sent, false, place.http1(judged.destination!), upgrading);
    client.on('close', () => upstream.destroy());
    upstream.on('upgrade', (incoming, socket, first) => {
      try {
        const reply = clean(replyOf(incoming).head, judged.stages.inbound);
        watch(socket as Socket, judged.stages.inbound, () => connection.client.resetAndDestroy());
        client.write(textOf({ ...reply, headers: [...reply.headers, ...upgrading] }));
        if (first.length > 0) socket.unshift(first);
        if (head.length > 0) socket.write(head);
        pump(socket as Socket, client);
        pump(client, socket as Socket);
        record({ status: reply.status, verdict: 'allowed', code: null, reason: '' }, incoming.statusCode ?? null);
      } catch (reason) {
        socket.destroy();
        refuse(reason);
      }
    });
    upstream.on('response', (incoming) => {
      // It declined. The body's framing ends here: its end is the connection's.
      try {
        const reply = clean(replyOf(incoming).head, judged.stages.inbound);
        watch(incoming, judged.stages.inbound, () => connection.client.resetAndDestroy());
        client.write(textOf({ ...reply, headers: [...reply.headers, 'Connection', 'close'] }));
        incoming.pipe(client);
        record({ status: reply.status, verdict: 'allowed', code: null, reason: '' }, incoming.statusCode ?? null);
      } catch (reason) {
        incoming.destroy();
        refuse(reason);
      }
    });
    upstream.on('error', refuse);
    upstream.end();
  } catch (reason) {
    refuse(reason);
  }
  return undefined;
}

function clean(head: ResponseHead, stages: readonly Stage[]): ResponseHead {
  let cleaned = head;
  for (const stage of stages) if (stage.upgraded !== undefined) cleaned = stage.upgraded(cleaned);
  return cleaned;
}

/** What comes from the server as it is may still be forbidden: then the connection ends before it arrives. */
function watch(from: Socket | IncomingMessage, stages: readonly Stage[], onForbidden: () => void): void {
  const filters: BodyFilter[] = stages.map((stage) => stage.upgradedBytes?.() ?? null).filter((filter) => filter !== null);
  if (filters.length === 0) return;
  from.on('data', (chunk: Buffer) => {
    try {
      for (const filter of filters) void filter.push(chunk);
    } catch {
      from.destroy();
      onForbidden();
    }
  });
  from.pause();
}

/** Answers of this proxy's own to a request that no response was made for. */
class UpgradeAnswer {
  readonly #client: Socket;
  readonly #connection: Connection;
  begun = false;

  constructor(client: Socket, connection: Connection) {
    this.#client = client;
    this.#connection = connection;
  }

  begin({ status, headers }: ResponseHead): BodySink {
    this.begun = true;
    const chunks: Buffer[] = [];
    return {
      write: (chunk) => {
        chunks.push(chunk);
        return true;
      },
      drained: () => Promise.resolve(),
      end: () => endWith(this.#client, status, { ...Object.fromEntries(headerPairs(headers)), Connection: 'close' }, Buffer.concat(chunks).toString()),
    };
  }

  abort(): void {
    this.#connection.client.resetAndDestroy();
  }
}

function textOf({ status, reason, headers }: ResponseHead): string {
  const lines = headerPairs(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} ${reason}\r\n${lines.join('')}\r\n`;
}
