import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { connect as connectTls, rootCertificates } from 'node:tls';

const longestAnswer = 16_384;

/** A proxy of the company's network, through which everything is dialled (RFC 9110 section 9.3.6). It is given addresses, never names, so that what was checked is what is dialled. */
export class UpstreamProxy {
  readonly #url: URL;
  readonly #ca: string[] | undefined;

  /** @throws Error when the URL is none, or the file cannot be read. */
  constructor(url: string, extraCaFile: string | null) {
    const parsed = URL.parse(url);
    if (parsed === null || !['http:', 'https:'].includes(parsed.protocol)) throw new Error('The upstream proxy is not an http:// or https:// URL.');
    this.#url = parsed;
    this.#ca = extraCaFile === null ? undefined : [...rootCertificates, readFileSync(extraCaFile, 'utf8')];
  }

  /** A connection to the address through the proxy. @throws Error with the proxy's answer when it refuses. */
  async connect(address: string, port: number, signal: AbortSignal): Promise<Socket> {
    const { protocol, hostname, port: proxyPort, username, password } = this.#url;
    const socket =
      protocol === 'https:'
        ? connectTls({ host: hostname, port: Number(proxyPort || 443), servername: hostname, ...(this.#ca === undefined ? {} : { ca: this.#ca }) })
        : connect({ host: hostname, port: Number(proxyPort || 80), allowHalfOpen: true });
    const credentials = username === '' ? '' : `Proxy-Authorization: Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64')}\r\n`;
    socket.setNoDelay(true);
    try {
      socket.write(`CONNECT ${address}:${port} HTTP/1.1\r\nHost: ${address}:${port}\r\n${credentials}\r\n`);
      const status = await readStatus(socket, signal);
      if (status < 200 || status > 299) throw new Error(`the upstream proxy refused with status ${status}`);
      return socket;
    } catch (reason) {
      socket.destroy();
      throw reason;
    }
  }
}

function readStatus(socket: Socket, signal: AbortSignal): Promise<number> {
  return new Promise((resolve, reject) => {
    let head = Buffer.alloc(0);
    const settle = (work: () => void): void => {
      socket.off('data', onData).off('error', onError).off('close', onClose);
      signal.removeEventListener('abort', onAbort);
      work();
    };
    const onData = (chunk: Buffer): void => {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf('\r\n\r\n');
      if (end < 0 && head.length > longestAnswer) settle(() => reject(new Error('the upstream proxy answered with something that is not HTTP')));
      if (end < 0) return;
      const status = Number(/^HTTP\/1\.\d (\d{3})/.exec(head.toString('latin1', 0, end))?.[1] ?? 0);
      socket.pause();
      settle(() => {
        if (head.length > end + 4) socket.unshift(head.subarray(end + 4));
        resolve(status);
      });
    };
    const onError = (reason: Error): void => settle(() => reject(reason));
    const onClose = (): void => settle(() => reject(new Error('the upstream proxy closed the connection')));
    const onAbort = (): void => settle(() => reject(signal.reason instanceof Error ? signal.reason : new Error('aborted')));
    socket.on('data', onData).on('error', onError).on('close', onClose);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
}
