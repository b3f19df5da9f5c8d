import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { ConnectionEvent } from '../../core/network/egress.ts';
import { type SandboxId, type TeamId } from '../../core/ids.ts';
import type { Inspection, InspectionEvent } from '../../core/network/inspection.ts';
import { parsePolicy } from '../../core/network/parse.ts';
import { openCgroup } from '../../host/cgroup.ts';
import { type Instance, openInstance } from '../../host/instance.ts';
import { silentLog } from '../../host/log.ts';
import { linkAddresses } from '../../host/network/addresses.ts';
import { ensureGateway, removeGateway } from '../../host/network/gateway.ts';
import { type Slot, Slots } from '../../host/slots.ts';
import { Internet } from './internet.ts';

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
  readonly internet: Internet;
  readonly guests: LabGuest[] = [];
  readonly control: ControlClient;
  proxy!: ChildProcess;
  proxyErrors = '';
  readonly #settings: object;

  private constructor(dir: string, instance: Instance, internet: Internet, settings: object) {
    this.dir = dir;
    this.instance = instance;
    this.internet = internet;
    this.#settings = settings;
    this.slots = new Slots(instance, { ahead: 0, diskMb: 64, log: silentLog });
    this.control = new ControlClient(join(dir, 'control.sock'));
  }

  static async open(guests: number, settings: object = {}): Promise<Laboratory> {
    const dir = mkdtempSync(join(tmpdir(), 'paddock-egress-'));
    const instance = await openInstance(dir, undefined);
    const lab = new Laboratory(dir, instance, await Internet.open(instance.id), settings);
    try {
      await ensureGateway(lab.instance);
      await lab.startProxy();
      for (let i = 0; i < guests; i++) lab.guests.push(await LabGuest.start(await lab.slots.claim(64, new AbortController().signal)));
      return lab;
    } catch (reason) {
      await lab.close();
      throw reason;
    }
  }

  /** First three numbers of the internet's addresses. */
  get net(): string {
    return this.internet.net;
  }

  /** What the name server knows. */
  get names(): Internet['names'] {
    return this.internet.names;
  }

  /** What the name server was asked. */
  get asked(): string[] {
    return this.internet.asked;
  }

  host(number: number): string {
    return this.internet.host(number);
  }

  name(name: string, ...addresses: string[]): void {
    this.internet.name(name, ...addresses);
  }

  listen(port: number): { fd: number; backlog: number } {
    return this.internet.listen(port);
  }

  serve(port: number, serve: (socket: Socket) => void): Promise<void> {
    return this.internet.serve(port, serve);
  }

  keep(server: { close(): unknown }): void {
    this.internet.keep(server);
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
    this.proxy = spawn(process.execPath, ['--max-semi-space-size=1', join(here, '../main.ts'), JSON.stringify(settings)], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.proxy.stderr!.on('data', (data: Buffer) => (this.proxyErrors += data.toString()));
    const [line] = (await Promise.race([once(this.proxy.stdout!, 'data'), once(this.proxy, 'exit')])) as [Buffer | number];
    if (!Buffer.isBuffer(line)) throw new Error(`the egress proxy did not start: ${this.proxyErrors}`);
    await this.control.connect();
  }

  async admit(guest: LabGuest, rules: Rules, state: { readonly secluded?: boolean; readonly inspection?: Inspection } = {}): Promise<void> {
    await this.control.request({ op: 'admit', entry: { ...this.entry(guest, rules), ...state } });
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

  /** As `events`, of requests that were looked into. */
  async inspections(fits: (event: InspectionEvent) => boolean, ms = 3000): Promise<InspectionEvent[]> {
    const until = Date.now() + ms;
    for (;;) {
      const found = this.control.inspections.filter(fits);
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
    for (const guest of this.guests) await this.slots.release(guest.slot);
    await this.slots.close();
    await removeGateway(this.instance);
    await this.internet.close();
    await openCgroup(this.instance.cgroup).remove();
    rmSync(this.dir, { recursive: true });
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
  readonly inspections: InspectionEvent[] = [];
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
    await this.request({ op: 'hello', version: 3, events: true });
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

  #onLine(line: { n?: number; error?: string; event?: string; k?: number; items?: unknown[] }): void {
    if (line.event !== undefined) {
      if (line.event === 'inspections') this.inspections.push(...(line.items as InspectionEvent[]));
      else this.events.push(...(line.items as ConnectionEvent[]));
      if (this.acknowledges) this.#socket!.write(`${JSON.stringify({ ack: line.k, of: line.event })}\n`);
      return;
    }
    const waiting = this.#waiting.get(line.n!);
    this.#waiting.delete(line.n!);
    if (line.error === undefined) waiting?.resolve(line);
    else waiting?.reject(new Error(line.error));
  }
}
