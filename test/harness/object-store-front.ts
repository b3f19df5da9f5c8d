import { createHash, createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, request as ask, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';

export interface AskedObject {
  readonly method: string;
  readonly path: string;
}

/** What happens to a request: it goes on, ends without an answer before or after it has been carried out, never ends, or is answered with a status. */
export type Fate = 'pass' | 'cut' | 'cut after' | 'hang' | number;

/**
 * Stands before an S3 server that does not look closely: checks signatures (AWS Signature Version 4) and the SHA-256 of bodies, and keeps the
 * conditions of writes. Tests decide what becomes of requests.
 */
export class ObjectStoreFront {
  readonly asked: AskedObject[] = [];
  fate: (asked: AskedObject) => Fate = () => 'pass';
  #last: Promise<unknown> = Promise.resolve();
  readonly #server;
  readonly #secret: string;
  readonly #upstream: number;

  constructor(secret: string, upstream: number) {
    this.#secret = secret;
    this.#upstream = upstream;
    this.#server = createServer((incoming, response) => void this.#answer(incoming, response).catch(() => response.destroy()));
  }

  async listen(port: number): Promise<void> {
    this.#server.listen(port, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #answer(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = 'GET', url = '/' } = incoming;
    const asked = { method, path: url };
    this.asked.push(asked);
    const fate = this.fate(asked);
    if (fate === 'cut') return void incoming.socket.destroy();
    const parts: Buffer[] = [];
    for await (const part of incoming as AsyncIterable<Buffer>) parts.push(part);
    const body = Buffer.concat(parts);
    if (fate === 'hang') return;
    if (typeof fate === 'number') return refuse(response, fate, fate === 503 ? 'SlowDown' : 'AccessDenied');
    const { authorization } = incoming.headers;
    if (authorization === undefined) return refuse(response, 403, 'AccessDenied');
    if (!isSigned(method, url, incoming.headers, authorization, this.#secret)) return refuse(response, 403, 'SignatureDoesNotMatch');
    if (incoming.headers['x-amz-content-sha256'] !== createHash('sha256').update(body).digest('hex')) return refuse(response, 400, 'XAmzContentSHA256Mismatch');
    const { 'if-match': wanted, 'if-none-match': unwanted, ...headers } = incoming.headers;
    const answer = await this.#inTurn(async () => {
      if (method === 'PUT' && (wanted ?? unwanted) !== undefined) {
        const { statusCode, headers: there } = await this.#forward('HEAD', url, headers, null);
        if (wanted === undefined ? statusCode === 200 : there.etag !== wanted) return null;
      }
      return this.#forward(method, url, headers, body);
    }, method === 'PUT' && (wanted ?? unwanted) !== undefined);
    if (answer === null) return refuse(response, 412, 'PreconditionFailed');
    if (fate === 'cut after') return void incoming.socket.destroy();
    response.writeHead(answer.statusCode ?? 500, answer.headers);
    answer.on('error', () => response.destroy());
    answer.pipe(response);
  }

  /** Nothing else is written between a condition and the write that it is for. */
  async #inTurn<T>(work: () => Promise<T>, conditional: boolean): Promise<T> {
    if (!conditional) return work();
    const mine = this.#last.then(work, work);
    this.#last = mine;
    return mine;
  }

  async #forward(method: string, path: string, headers: IncomingHttpHeaders, body: Buffer | null): Promise<IncomingMessage> {
    const { 'content-length': _length, ...others } = headers;
    const forwarded = ask({ host: '127.0.0.1', port: this.#upstream, method, path, headers: body === null ? others : { ...others, 'content-length': body.length }, agent: false });
    forwarded.on('error', () => undefined); // told below, or by the answer
    forwarded.end(body ?? undefined);
    const [answer] = (await once(forwarded, 'response')) as [IncomingMessage];
    answer.on('error', () => undefined);
    if (body === null) answer.resume();
    return answer;
  }
}

function refuse(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { 'content-type': 'application/xml' });
  response.end(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>refused</Message></Error>`);
}

/** https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html */
function isSigned(method: string, url: string, headers: IncomingHttpHeaders, authorization: string, secret: string): boolean {
  const [, , date = '', region = '', signed = '', signature = ''] = /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(authorization) ?? [];
  const [path = '', query = ''] = url.split('?');
  const pairs = query.split('&').filter((pair) => pair !== '').map((pair) => (pair.includes('=') ? pair : `${pair}=`));
  const names = signed.split(';');
  if (!['host', 'x-amz-date', 'x-amz-content-sha256'].every((name) => names.includes(name))) return false;
  const lines = names.map((name) => `${name}:${String(headers[name] ?? '').trim().replaceAll(/ +/g, ' ')}\n`).join('');
  const canonical = [method, path, pairs.sort().join('&'), lines, signed, headers['x-amz-content-sha256']].join('\n');
  const scope = `${date}/${region}/s3/aws4_request`;
  const text = ['AWS4-HMAC-SHA256', headers['x-amz-date'], scope, createHash('sha256').update(canonical).digest('hex')].join('\n');
  const key = [date, region, 's3', 'aws4_request'].reduce<Buffer | string>((last, part) => createHmac('sha256', last).update(part).digest(), `AWS4${secret}`);
  return createHmac('sha256', key).update(text).digest('hex') === signature;
}
