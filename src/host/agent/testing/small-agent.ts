import { type IncomingMessage, type ServerResponse, createServer } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { agentPort } from '../connection.ts';

type Answer = (request: IncomingMessage, response: ServerResponse, body: string) => void;

let addresses = 0;

/** An agent of the tests on an address of its own: one process `p1` whose output the test writes, and answers that the test chooses. */
export class SmallAgent implements AsyncDisposable {
  // Test files run in processes of their own, at the same time.
  readonly address = `127.${1 + (process.pid % 250)}.${Math.floor(process.pid / 250) % 250}.${++addresses}`;
  /** Method and path of every request, and the token that came with it. */
  readonly requests: string[] = [];
  readonly answers = new Map<string, Answer>();
  readonly #sockets = new Set<Duplex>();
  readonly #followers = new Set<ServerResponse>();
  readonly #output: Buffer[] = [];
  readonly #server = createServer((request, response) => void this.#serve(request, response));

  static async open(): Promise<SmallAgent> {
    const agent = new SmallAgent();
    await agent.listen();
    return agent;
  }

  constructor() {
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => this.#sockets.delete(socket));
    });
    this.#server.on('upgrade', (request: IncomingMessage, socket: Duplex) => {
      this.#note(request);
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: paddock-tunnel\r\n\r\n');
      socket.pipe(socket);
    });
    this.answers.set('GET /v1/health', (_request, response) => response.end('{"protocol":2,"version":"test","claimed":true}'));
    this.answers.set('POST /v1/hold', (_request, response) => {
      this.cut(response.socket);
      response.setHeader('connection', 'close');
      response.end('{}');
    });
    this.answers.set('POST /v1/start-and-follow', (_request, response) => {
      response.write(frame(7, 0, '{"id":"p1","pid":5,"started_at_ms":1}'));
      this.#follow(response, 0);
    });
    this.answers.set('GET /v1/processes', (_request, response) => response.end('{"processes":[]}'));
  }

  get connections(): number {
    return this.#sockets.size;
  }

  get followers(): number {
    return this.#followers.size;
  }

  /** Bytes that the kernel has not taken yet. */
  get unsent(): number {
    return [...this.#sockets].reduce((sum, socket) => sum + socket.writableLength, 0);
  }

  listen(): Promise<void> {
    return new Promise((resolve, reject) => this.#server.once('error', reject).listen(agentPort, this.address, resolve));
  }

  /** Takes no further connections, and cuts those there are. */
  async stop(): Promise<void> {
    const stopped = new Promise((resolve) => this.#server.close(resolve));
    this.cut();
    await stopped;
  }

  /** Resets every connection but one. */
  cut(spared: Duplex | null = null): void {
    for (const socket of this.#sockets) if (socket !== spared) (socket as Socket).resetAndDestroy();
  }

  say(text: string): void {
    this.#emit(frame(1, this.#output.length + 1, text));
  }

  exit(): void {
    this.#emit(frame(4, this.#output.length + 1, '{"exit_code":0,"signal":null,"reason":"exited"}'));
    for (const follower of this.#followers) follower.end();
  }

  /** Bytes that are no whole frame, to all who follow. */
  stammer(): void {
    for (const follower of this.#followers) follower.write(frame(1, 1000, 'never seen').subarray(0, 15));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.stop();
  }

  #emit(bytes: Buffer): void {
    this.#output.push(bytes);
    for (const follower of this.#followers) follower.write(bytes);
  }

  #follow(response: ServerResponse, after: number): void {
    response.write(Buffer.concat(this.#output.slice(after)));
    this.#followers.add(response);
    response.on('close', () => this.#followers.delete(response));
    if (this.#output.at(-1)?.readUInt8(0) === 4) response.end();
  }

  #note(request: IncomingMessage): string {
    const call = `${request.method} ${request.url}`;
    this.requests.push(`${call} ${request.headers.authorization?.replace('Bearer ', '') ?? ''}`.trim());
    return call;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const call = this.#note(request);
    response.on('error', () => {});
    const answer = this.answers.get(call.split('?', 1)[0]!);
    const output = /^GET \/v1\/processes\/p1\/output\?after=(\d+)/.exec(call);
    try {
      if (answer !== undefined) answer(request, response, await bodyOf(request));
      else if (output !== null) this.#follow(response, Number(output[1]));
      else refuse(response, 404, 'not_found');
    } catch {
      response.destroy(); // the client has left
    }
  }
}

export function refuse(response: ServerResponse, status: number, code: string): void {
  response.statusCode = status;
  response.end(JSON.stringify({ code, message: `the small agent says ${code}` }));
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request as AsyncIterable<Buffer>) text += chunk.toString();
  return text;
}

function frame(type: number, entry: number, payload: string): Buffer {
  const head = Buffer.alloc(13);
  head.writeUInt8(type, 0);
  head.writeBigUInt64BE(BigInt(entry), 1);
  head.writeUInt32BE(Buffer.byteLength(payload), 9);
  return Buffer.concat([head, Buffer.from(payload)]);
}
