import { createSocket, type Socket as DatagramSocket } from 'node:dgram';
import { createServer, type Socket } from 'node:net';
import dns, { type Answer, type DecodedPacket } from 'dns-packet';
import { listNetns } from '../../host/network/netns.ts';
import { runTool } from '../../host/tool.ts';
import { bindDatagram, listenTransparent } from '../sockets.ts';

interface Closable {
  close(): unknown;
}

/**
 * An internet of a test's own: a namespace with public-looking addresses and a name server, linked to the machine for as long as the test
 * runs. `<net>.53` is the name server, `<net>.10` to `<net>.29` are hosts; a server on a port serves all of them.
 */
export class Internet {
  /** First three numbers of its addresses. */
  readonly net: string;
  readonly netns: string;
  readonly names = new Map<string, Answer[]>();
  /** What the name server was asked: `type name`. */
  readonly asked: string[] = [];
  readonly #link: string;
  /** First three numbers of the addresses of the link to it. */
  readonly #uplink: string;
  readonly #servers: Closable[] = [];

  private constructor(id: string) {
    const [high, low] = [Number.parseInt(id.slice(0, 2), 16), Number.parseInt(id.slice(2, 4), 16)];
    this.net = `${[93, 151, 185, 194][high & 3]}.${high}.${low}`;
    this.netns = `pdi-${id}`;
    this.#link = `pi${id}`;
    this.#uplink = `100.${64 + (high >> 2)}.${low}`;
  }

  /** @param id up to twelve hex digits, no other test's: they decide names and addresses. */
  static async open(id: string): Promise<Internet> {
    const internet = new Internet(id);
    try {
      await internet.#build();
      return internet;
    } catch (reason) {
      await internet.close();
      throw reason;
    }
  }

  /** The address that the name server of the internet with this id will have. */
  static nameServerOf(id: string): string {
    return new Internet(id).nameServer;
  }

  host(number: number): string {
    return `${this.net}.${number}`;
  }

  get nameServer(): string {
    return this.host(53);
  }

  /** Answers questions for the name; without addresses there is no such name. */
  name(name: string, ...addresses: string[]): void {
    this.names.set(name, addresses.map((data) => ({ type: 'A', name, ttl: 30, data })));
  }

  /** A descriptor that listens on the port of every address. */
  listen(port: number): { fd: number; backlog: number } {
    return { fd: listenTransparent(this.netns, port), backlog: 4096 };
  }

  /** A server that speaks over raw sockets on the port. */
  async serve(port: number, serve: (socket: Socket) => void): Promise<void> {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => {});
      serve(socket);
    });
    await new Promise<void>((resolve) => server.listen(this.listen(port), resolve));
    this.#servers.push(server);
  }

  /** Closes it at the end. */
  keep(server: Closable): void {
    this.#servers.push(server);
  }

  async close(): Promise<void> {
    for (const server of this.#servers) {
      if ('closeAllConnections' in server) (server as { closeAllConnections(): void }).closeAllConnections();
      server.close();
    }
    if (listNetns().has(this.netns)) await runTool('ip', ['netns', 'delete', this.netns]);
    await runTool('ip', ['link', 'delete', this.#link]).catch(() => {}); // it went with the namespace
  }

  async #build(): Promise<void> {
    const inside = (...args: string[]): Promise<string> => runTool('ip', ['-n', this.netns, ...args]);
    const [near, far] = [`${this.#uplink}.1`, `${this.#uplink}.2`];
    await runTool('ip', ['netns', 'add', this.netns]);
    await runTool('ip', ['link', 'add', this.#link, 'type', 'veth', 'peer', 'name', 'uplink', 'netns', this.netns]);
    await runTool('ip', ['addr', 'add', `${near}/30`, 'dev', this.#link]);
    await runTool('ip', ['link', 'set', this.#link, 'up']);
    await inside('link', 'set', 'lo', 'up');
    await inside('addr', 'add', `${far}/30`, 'dev', 'uplink');
    await inside('link', 'set', 'uplink', 'up');
    for (const number of [53, ...Array.from({ length: 20 }, (_, i) => i + 10)]) await inside('addr', 'add', `${this.host(number)}/32`, 'dev', 'lo');
    await inside('route', 'add', 'default', 'via', near, 'src', this.nameServer);
    await inside('route', 'add', `${near}/32`, 'dev', 'uplink', 'src', this.nameServer); // the name server answers from the address that was asked
    await runTool('ip', ['route', 'add', `${this.net}.0/24`, 'via', far]);
    await this.#serveNames();
  }

  async #serveNames(): Promise<void> {
    const udp: DatagramSocket = createSocket('udp4');
    udp.on('message', (bytes, from) => udp.send(this.#answer(dns.decode(bytes)), from.port, from.address));
    await new Promise<void>((resolve) => udp.bind({ fd: bindDatagram(this.netns, 53) }, resolve));
    this.#servers.push(udp);
    await this.serve(53, (socket) =>
      socket.on('data', (bytes: Buffer) => {
        const answer = this.#answer(dns.decode(bytes.subarray(2)));
        const length = Buffer.alloc(2);
        length.writeUInt16BE(answer.length);
        socket.write(Buffer.concat([length, answer]));
      }),
    );
  }

  #answer(query: DecodedPacket): Buffer {
    const question = query.questions![0]!;
    const name = question.name.toLowerCase();
    this.asked.push(`${question.type} ${name}`);
    const known = this.names.get(name);
    const answers = (known ?? []).filter((answer) => answer.type === question.type || answer.type === 'CNAME' || answer.name !== name);
    return dns.encode({ type: 'response', id: query.id!, flags: dns.RECURSION_AVAILABLE | (known === undefined ? 3 : 0), questions: query.questions!, answers });
  }
}
