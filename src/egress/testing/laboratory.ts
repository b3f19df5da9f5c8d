import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createSocket, type Socket as DatagramSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import dns, { type Answer, type DecodedPacket } from 'dns-packet';
import type { ConnectionEvent } from '../../core/network/egress.ts';
import { type SandboxId, type TeamId } from '../../core/ids.ts';
import { parsePolicy } from '../../core/network/parse.ts';
import { openCgroup } from '../../host/cgroup.ts';
import { type Instance, openInstance } from '../../host/instance.ts';
import { silentLog } from '../../host/log.ts';
import { linkAddresses } from '../../host/network/addresses.ts';
import { ensureGateway, removeGateway } from '../../host/network/gateway.ts';
import { listNetns } from '../../host/network/netns.ts';
import { type Slot, Slots } from '../../host/slots.ts';
import { runTool } from '../../host/tool.ts';
import { bindDatagram, listenTransparent } from '../sockets.ts';

const here = import.meta.dirname;

export interface Rules {
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
}

/** A gateway with guests, an egress proxy, and an internet of its own: a namespace with public-looking addresses and a name server. */
export class Laboratory {
  readonly instance: Instance;
  readonly slots: Slots;
  readonly dir: string;
  /** First three numbers of the internet's addresses: `<net>.53` is the name server, `.10` to `.29` are hosts. */
  readonly net: string;
  readonly internet: string;
  readonly names = new Map<string, Answer[]>();
  /** What the name server was asked. */
  readonly asked: string[] = [];
  readonly guests: LabGuest[] = [];
  readonly control: ControlClient;
  proxy!: ChildProcess;
  proxyErrors = '';
  #servers: { close(): unknown }[] = [];
  #settings: object = {};

  private constructor(dir: string, instance: Instance) {
    this.dir = dir;
    this.instance = instance;
    const octet = createHash('sha256').update(instance.id).digest()[0]!;
    this.net = `93.184.${octet}`;
    this.internet = `pdi-${instance.id}`;
    this.slots = new Slots(instance, { ahead: 0, diskMb: 64, log: silentLog });
    this.control = new ControlClient(join(dir, 'control.sock'));
  }

  static async open(guests: number, settings: object = {}): Promise<Laboratory> {
    const dir = mkdtempSync(join(tmpdir(), 'paddock-egress-'));
    const lab = new Laboratory(dir, await openInstance(dir, undefined));
    try {
      lab.#settings = settings;
      await ensureGateway(lab.instance);
      await lab.#buildInternet();
      await lab.startProxy();
      for (let i = 0; i < guests; i++) lab.guests.push(await LabGuest.start(await lab.slots.claim(64, new AbortController().signal)));
      return lab;
    } catch (reason) {
      await lab.close();
      throw reason;
    }
  }

  host(number: number): string {
    return `${this.net}.${number}`;
  }

  /** Answers questions for the name; without addresses there is no such name. */
  name(name: string, ...addresses: string[]): void {
    this.names.set(name, addresses.map((data) => ({ type: 'A', name, ttl: 30, data })));
  }

  /** A descriptor that listens on the port of every address of the internet. */
  listen(port: number): { fd: number; backlog: number } {
    return { fd: listenTransparent(this.internet, port), backlog: 4096 };
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
  keep(server: { close(): unknown }): void {
    this.#servers.push(server);
  }

  async startProxy(): Promise<void> {
    const settings = {
      netns: this.instance.gatewayNetns,
      controlSocket: join(this.dir, 'control.sock'),
      hostAddress: linkAddresses(this.instance.subnet, 0).near,
      subnet: this.instance.subnet.text,
      dnsUpstreams: [this.host(53)],
      ...this.#settings,
    };
    this.proxy = spawn(process.execPath, [join(here, '../main.ts'), JSON.stringify(settings)], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.proxy.stderr!.on('data', (data: Buffer) => (this.proxyErrors += data.toString()));
    const [line] = (await Promise.race([once(this.proxy.stdout!, 'data'), once(this.proxy, 'exit')])) as [Buffer | number];
    if (!Buffer.isBuffer(line)) throw new Error(`the egress proxy did not start: ${this.proxyErrors}`);
    await this.control.connect();
  }

  async admit(guest: LabGuest, rules: Rules): Promise<void> {
    await this.control.request({ op: 'admit', entry: this.entry(guest, rules) });
  }

  entry(guest: LabGuest, { allow = [], deny = [] }: Rules): object {
    return { sandboxId: guest.id, teamId: 'team' as TeamId, address: guest.slot.address, policy: parsePolicy({ allow, deny }) };
  }

  /** Events that fit, when there are any; fails after 3 s. */
  async events(fits: (event: ConnectionEvent) => boolean, ms = 3000): Promise<ConnectionEvent[]> {
    const until = Date.now() + ms;
    for (;;) {
      const found = this.control.events.filter(fits);
      if (found.length > 0 || Date.now() > until) return found;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async close(): Promise<void> {
    this.control.close();
    for (const guest of this.guests) await guest.stop();
    if (this.proxy !== undefined && this.proxy.exitCode === null && this.proxy.signalCode === null) {
      this.proxy.kill('SIGTERM');
      await once(this.proxy, 'exit');
    }
    for (const server of this.#servers) {
      if ('closeAllConnections' in server) (server as { closeAllConnections(): void }).closeAllConnections();
      server.close();
    }
    for (const guest of this.guests) await this.slots.release(guest.slot);
    await this.slots.close();
    await removeGateway(this.instance);
    if (listNetns().has(this.internet)) await runTool('ip', ['netns', 'delete', this.internet]);
    await runTool('ip', ['link', 'delete', this.#link]).catch(() => {});
    await openCgroup(this.instance.cgroup).remove();
    rmSync(this.dir, { recursive: true });
  }

  get #link(): string {
    return `pi${this.instance.id}`;
  }

  async #buildInternet(): Promise<void> {
    const octet = this.net.split('.')[2];
    const inside = (...args: string[]): Promise<string> => runTool('ip', ['-n', this.internet, ...args]);
    await runTool('ip', ['netns', 'add', this.internet]);
    await runTool('ip', ['link', 'add', this.#link, 'type', 'veth', 'peer', 'name', 'uplink', 'netns', this.internet]);
    await runTool('ip', ['addr', 'add', `100.127.${octet}.1/30`, 'dev', this.#link]);
    await runTool('ip', ['link', 'set', this.#link, 'up']);
    await inside('link', 'set', 'lo', 'up');
    await inside('addr', 'add', `100.127.${octet}.2/30`, 'dev', 'uplink');
    await inside('link', 'set', 'uplink', 'up');
    for (const number of [53, ...Array.from({ length: 20 }, (_, i) => i + 10)]) await inside('addr', 'add', `${this.host(number)}/32`, 'dev', 'lo');
    await inside('route', 'add', 'default', 'via', `100.127.${octet}.1`, 'src', this.host(53));
    await inside('route', 'add', `100.127.${octet}.1/32`, 'dev', 'uplink', 'src', this.host(53)); // the name server answers from the address that was asked
    await runTool('ip', ['route', 'add', `${this.net}.0/24`, 'via', `100.127.${octet}.2`]);
    const udp: DatagramSocket = createSocket('udp4');
    udp.on('message', (bytes, from) => udp.send(this.#answer(dns.decode(bytes)), from.port, from.address));
    await new Promise<void>((resolve) => udp.bind({ fd: bindDatagram(this.internet, 53) }, resolve));
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

/** Root in a slot's namespace with the host's own kernel: more than any guest ever has. */
export class LabGuest {
  readonly slot: Slot;
  readonly id: SandboxId;
  readonly #process: ChildProcess;
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(reason: Error): void }>();
  #next = 1;

  private constructor(slot: Slot, process: ChildProcess) {
    this.slot = slot;
    this.id = `00000000-0000-4000-8000-${String(slot.number).padStart(12, '0')}` as SandboxId;
    this.#process = process;
    createInterface({ input: process.stdout! }).on('line', (line) => {
      const { id, value, error } = JSON.parse(line) as { id: number; value?: unknown; error?: string };
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) waiting?.resolve(value);
      else waiting?.reject(new Error(error));
    });
  }

  static async start(slot: Slot): Promise<LabGuest> {
    return new LabGuest(slot, spawn('ip', ['netns', 'exec', slot.netns, process.execPath, join(here, 'guest-shell.mjs')], { stdio: ['pipe', 'pipe', 'inherit'] }));
  }

  /** Runs the body of an async function in the guest; see guest-shell.mjs for what it finds there. */
  run<T>(code: string, args: object = {}): Promise<T> {
    const id = this.#next++;
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#process.stdin!.write(`${JSON.stringify({ id, code, args })}\n`);
    });
  }

  attempt(host: string, port: number): Promise<{ outcome: string; ms: number }> {
    return this.run('return attempt(args.host, args.port)', { host, port });
  }

  resolve(name: string): Promise<string[] | string> {
    return this.run('return resolver.resolve4(args.name).catch((error) => error.code)', { name });
  }

  async stop(): Promise<void> {
    this.#process.kill('SIGKILL');
    await once(this.#process, 'exit');
  }
}

/** The server's side of the control socket. */
export class ControlClient {
  readonly events: ConnectionEvent[] = [];
  acknowledges = true;
  readonly #path: string;
  #waiting = new Map<number, { resolve(answer: Record<string, unknown>): void; reject(reason: Error): void }>();
  #socket: Socket | null = null;
  #next = 1;

  constructor(path: string) {
    this.#path = path;
  }

  async connect(): Promise<void> {
    const socket = connect(this.#path);
    await once(socket, 'connect');
    this.#socket = socket;
    socket.on('error', () => {});
    const waiting = (this.#waiting = new Map());
    socket.on('close', () => {
      for (const { reject } of waiting.values()) reject(new Error('the egress proxy is gone'));
    });
    createInterface({ input: socket })
      .on('line', (line) => this.#onLine(JSON.parse(line)))
      // It passes on what goes wrong with its input.
      .on('error', () => {});
    await this.request({ op: 'hello', version: 1, events: true });
  }

  request(request: object): Promise<Record<string, unknown>> {
    const n = this.#next++;
    return new Promise((resolve, reject) => {
      if (this.#socket?.destroyed !== false) return reject(new Error('the egress proxy is gone'));
      this.#waiting.set(n, { resolve, reject });
      return this.#socket.write(`${JSON.stringify({ n, ...request })}\n`);
    });
  }

  close(): void {
    this.#socket?.destroy();
  }

  #onLine(line: { n?: number; error?: string; event?: string; k?: number; items?: ConnectionEvent[] }): void {
    if (line.event !== undefined) {
      this.events.push(...(line.items ?? []));
      if (this.acknowledges) this.#socket!.write(`${JSON.stringify({ ack: line.k })}\n`);
      return;
    }
    const waiting = this.#waiting.get(line.n!);
    this.#waiting.delete(line.n!);
    if (line.error === undefined) waiting?.resolve(line);
    else waiting?.reject(new Error(line.error));
  }
}
