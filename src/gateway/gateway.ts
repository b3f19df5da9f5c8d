import { createServer as createHttpServer, type IncomingMessage, type Server as HttpServer } from 'node:http';
import { connect, type AddressInfo, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import type { Certificates } from './certificates.ts';

interface GatewayOptions {
  /** Where the server is. */
  readonly server: URL;
  readonly certificates: Certificates;
  /** Hosts that lead to the server, in lower case; one that begins with `*.` stands for every name with one label more. */
  readonly names: readonly string[];
  /** Port of the proxy; 0 lets the system choose. */
  readonly proxyPort: number;
  /** Address for TLS besides, for clients whose DNS leads here; null for none. */
  readonly tls: { readonly host: string; readonly port: number } | null;
}

/** A gateway at work. */
export interface Gateway {
  /** Where the proxy listens, on loopback. */
  readonly proxyPort: number;
  /** Where TLS listens, if it does. */
  readonly tlsPort: number | null;
  close(): Promise<void>;
}

const loopback = '127.0.0.1';
const dialMs = 10_000;

/**
 * Brings clients that always go to a public host over TLS to a server of one's own (contract of the Superserve API, section 1.4): a proxy that
 * takes `CONNECT` for those hosts, and nothing else, ends TLS with a certificate of its own and passes the bytes on as they are. It needs no
 * privileges, and never sees more than its user's own traffic.
 */
export async function openGateway({ server, certificates, names, proxyPort, tls }: GatewayOptions): Promise<Gateway> {
  const open = new Set<Duplex>();
  const track = (socket: Duplex): void => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    socket.on('error', () => socket.destroy()); // whoever was there has left
  };
  const terminator = createTlsServer({ cert: certificates.certificate, key: certificates.key, ALPNProtocols: ['http/1.1'] }, (socket) => {
    track(socket);
    passOn(socket, server, track);
  });
  terminator.on('tlsClientError', (_error, socket) => socket.destroy()); // one that does not trust the authority, for example

  const proxy = createHttpServer((request, response) => {
    const body = JSON.stringify({ error: { code: 'bad_request', message: `This proxy takes CONNECT to ${names.join(', ')} only, not ${request.method} ${(request.url ?? '').slice(0, 200)}. Put other hosts into NO_PROXY.` } });
    response.writeHead(405, { 'content-type': 'application/json; charset=utf-8', allow: 'CONNECT' }).end(`${body}\n`);
  });
  proxy.on('connect', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    track(socket);
    const refusal = refusalOf(request.url ?? '', names);
    if (refusal !== null) {
      socket.end(`HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: ${Buffer.byteLength(refusal)}\r\n\r\n${refusal}`);
      return;
    }
    socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
    if (head.length > 0) socket.unshift(head);
    terminator.emit('connection', socket);
  });
  await listen(proxy, loopback, proxyPort);
  if (tls !== null) await listen(terminator, tls.host, tls.port);
  return {
    proxyPort: portOf(proxy),
    tlsPort: tls === null ? null : portOf(terminator),
    close: async () => {
      for (const socket of open) socket.destroy();
      await Promise.all([proxy, ...(tls === null ? [] : [terminator])].map((each) => new Promise((resolve) => each.close(resolve))));
    },
  };
}

/** Why a target is refused, one sentence; null when it is not. */
export function refusalOf(target: string, names: readonly string[]): string | null {
  const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(target.toLowerCase()) ?? [];
  const known = names.some((name) => (name.startsWith('*.') ? host.endsWith(name.slice(1)) && !host.slice(0, -name.length + 1).includes('.') && host.length > name.length - 1 : host === name));
  if (known && port === '443') return null;
  return `This is Paddock's gateway: it leads to ${names.join(', ')} on port 443 and nowhere else, so not to ${target.slice(0, 200)}. Put other hosts into NO_PROXY, or use it for this one program only.\n`;
}

/** One connection of a client, one to the server; requests, streams and WebSockets go through untouched. */
function passOn(client: Duplex, server: URL, track: (socket: Duplex) => void): void {
  const secure = server.protocol === 'https:';
  const port = Number(server.port || (secure ? 443 : 80));
  const host = server.hostname.replace(/^\[|\]$/g, '');
  const upstream: Socket = secure ? connectTls({ host, port, servername: host, ALPNProtocols: ['http/1.1'] }) : connect({ host, port });
  let reached = false;
  upstream.setTimeout(dialMs, () => upstream.destroy(new Error('it does not answer')));
  upstream.once(secure ? 'secureConnect' : 'connect', () => {
    reached = true;
    upstream.setTimeout(0);
    upstream.setNoDelay(true);
  });
  upstream.once('error', (error) => {
    if (reached || client.destroyed) return client.destroy();
    const body = JSON.stringify({ error: { code: 'service_unavailable', message: `The gateway cannot reach the Paddock server at ${server.origin}: ${error.message}. Is it running?` } });
    return client.end(`HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json; charset=utf-8\r\nConnection: close\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
  });
  track(upstream);
  client.pipe(upstream);
  upstream.pipe(client);
  client.once('close', () => upstream.destroy());
  upstream.once('close', () => reached && client.destroy());
}

function listen(server: Server | HttpServer, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function portOf(server: Server | HttpServer): number {
  return (server.address() as AddressInfo).port;
}
