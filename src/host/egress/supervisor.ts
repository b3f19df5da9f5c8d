import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { PaddockError } from '../../core/errors.ts';
import type { ConnectionEvent, Egress, EgressEntry } from '../../core/network/egress.ts';
import type { InspectionEvent } from '../../core/network/inspection.ts';
import type { Instance } from '../instance.ts';
import type { HostLog } from '../log.ts';
import { linkAddresses } from '../network/addresses.ts';
import { isRunning, sendSignal, startTime } from '../process-table.ts';
import { HostSetupError } from '../setup-error.ts';
import { ControlConnection, type ControlListeners, type EventBatch } from './control.ts';

export interface EgressOptions {
  /** Name servers, `address` or `address:port`; empty: the machine's. */
  readonly dnsUpstreams: readonly string[];
  readonly upstreamProxy: string | null;
  readonly extraCaFile: string | null;
}

/** Bodies on their way are many short-lived buffers outside the heap: with a small nursery they are given back as fast as they come. */
const egressFlags = ['--max-semi-space-size=1'];

const program = fileURLToPath(new URL('../../egress/main.ts', import.meta.url));
const startDeadlineMs = 10_000;
const restartPauseMs = 100;
const giveUpAfterMs = 5_000;

/**
 * Keeps the egress process running and its table right. The process has a life of its own: it outlives this server and keeps its
 * table meanwhile; when it dies it is started again and gets the whole table before anything passes. Between the two nothing can
 * leave: its sockets are gone, so connections are refused.
 */
export class EgressSupervisor implements Egress {
  readonly #instance: Instance;
  readonly #options: EgressOptions;
  readonly #log: HostLog;
  readonly #dir: string;
  readonly #entries = new Map<string, EgressEntry>();
  /** Addresses of guests that are being saved. */
  readonly #secluded = new Set<string>();
  /** The last change of each entry that is under way. */
  readonly #revising = new Map<string, Promise<void>>();
  /** Counts changes of the entries, so that none slips by while a table is being sent. */
  #version = 0;
  #connection: ControlConnection | null = null;
  #connected = Promise.withResolvers<ControlConnection>();
  #closed = false;
  readonly #listeners: ControlListeners = { onBatch: (batch, connection) => void this.#pass(connection, batch), onEnd: (connection) => this.#lose(connection) };
  #onConnections: (events: readonly ConnectionEvent[]) => Promise<void> = async () => {};
  #onInspections: (events: readonly InspectionEvent[]) => Promise<void> = async () => {};

  constructor(instance: Instance, options: EgressOptions, log: HostLog) {
    this.#instance = instance;
    this.#options = options;
    this.#log = log;
    this.#dir = join(instance.dataDir, 'host', 'egress');
    this.#connected.promise.catch(() => {});
  }

  onConnections(listener: (events: readonly ConnectionEvent[]) => Promise<void>): void {
    this.#onConnections = listener;
  }

  onInspections(listener: (events: readonly InspectionEvent[]) => Promise<void>): void {
    this.#onInspections = listener;
  }

  /** Finds the process of an earlier server or starts one, and puts exactly these entries in force. */
  async start(entries: readonly EgressEntry[]): Promise<void> {
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 });
    for (const entry of entries) this.#entries.set(entry.address, entry);
    try {
      const connection = await this.#reach();
      await this.#sendTable(connection);
      this.#take(connection);
    } catch (reason) {
      throw new HostSetupError(`The egress proxy cannot be started: ${(reason as Error).message}`, { cause: reason });
    }
  }

  async admit(entry: EgressEntry): Promise<void> {
    const before = this.#entries.get(entry.address);
    this.#set(entry.address, entry);
    this.#secluded.delete(entry.address);
    try {
      await (await this.#ready()).admit(entry);
    } catch (reason) {
      // What is not known to be in force must not come back with the next table.
      this.#set(entry.address, before);
      throw new PaddockError('no_capacity', `the network rules could not be put in force: ${(reason as Error).message}`, { retryAfterSeconds: 2 }, { cause: reason });
    }
  }

  /**
   * Changes the entry of an address, one change after the other. When it fails, the old one holds; with `keep` the new one comes with the next
   * table, for changes that take something away.
   */
  async revise(address: string, change: (entry: EgressEntry) => EgressEntry, keep = false): Promise<void> {
    const revising = this.#reviseAfter(this.#revising.get(address), address, change, keep);
    this.#revising.set(address, revising);
    try {
      await revising;
    } finally {
      if (this.#revising.get(address) === revising) this.#revising.delete(address);
    }
  }

  async #reviseAfter(earlier: Promise<void> | undefined, address: string, change: (entry: EgressEntry) => EgressEntry, keep: boolean): Promise<void> {
    await earlier?.catch(() => undefined);
    const before = this.#entries.get(address);
    if (before === undefined) throw new PaddockError('gone', 'the sandbox has ended');
    const entry = change(before);
    this.#set(address, entry);
    try {
      await (await this.#ready()).admit(this.#asTold(entry));
    } catch (reason) {
      if (!keep && this.#entries.get(address) === entry) this.#set(address, before);
      throw new PaddockError('no_capacity', `the network rules could not be put in force: ${(reason as Error).message}`, { retryAfterSeconds: 2 }, { cause: reason });
    }
  }

  #asTold(entry: EgressEntry): EgressEntry {
    return this.#secluded.has(entry.address) ? { ...entry, secluded: true } : entry;
  }

  async expel(address: string): Promise<void> {
    this.#set(address, undefined);
    this.#secluded.delete(address);
    // Without a connection nothing of it can leave, and the next table does not have it.
    await this.#connection?.expel(address).catch((reason: unknown) => this.#log.warn({ err: reason, address }, 'an address could not be expelled from the egress'));
  }

  /** Cuts what is open from this address, and lets nothing out until `reopen` or another `admit`. Without a connection nothing leaves anyway. */
  async seclude(address: string): Promise<void> {
    const entry = this.#entries.get(address);
    if (entry === undefined) return;
    this.#secluded.add(address);
    await this.#tell(this.#asTold(entry));
  }

  /** Takes a `seclude` back. */
  async reopen(address: string): Promise<void> {
    this.#secluded.delete(address);
    const entry = this.#entries.get(address);
    if (entry !== undefined) await this.#tell(entry);
  }

  /** What does not arrive needs no repetition: a connection that is lost is followed by the whole table. */
  async #tell(entry: EgressEntry): Promise<void> {
    await this.#connection?.admit(entry).catch((reason: unknown) => this.#log.warn({ err: reason, address: entry.address }, 'the egress could not be told to close or open an address'));
  }

  /** Lets go of the process, which goes on with its table. */
  close(): void {
    this.#closed = true;
    this.#connection?.close();
    this.#connected.reject(new Error('the server is stopping'));
  }

  /** Ends the process: nothing leaves from any guest afterwards. */
  async end(): Promise<void> {
    this.close();
    const process = this.#readPid();
    if (process !== null && isRunning(process.pid, process.start)) {
      sendSignal(process.pid, 'SIGKILL');
      while (isRunning(process.pid, process.start)) await sleep(5);
    }
    rmSync(this.#dir, { recursive: true, force: true });
  }

  #set(address: string, entry: EgressEntry | undefined): void {
    this.#version++;
    if (entry === undefined) this.#entries.delete(address);
    else this.#entries.set(address, entry);
  }

  get #socketPath(): string {
    return join(this.#dir, 'control.sock');
  }

  async #ready(): Promise<ControlConnection> {
    if (this.#connection !== null) return this.#connection;
    const timeout = sleep(giveUpAfterMs, undefined, { ref: false }).then(() => {
      throw new Error('the egress proxy is being restarted');
    });
    return Promise.race([this.#connected.promise, timeout]);
  }

  async #reach(): Promise<ControlConnection> {
    const found = this.#readPid();
    if (found !== null && isRunning(found.pid, found.start)) {
      try {
        return await ControlConnection.open(this.#socketPath, this.#listeners);
      } catch (reason) {
        this.#log.warn({ err: reason }, 'the egress process of an earlier server is not usable; starting another');
        sendSignal(found.pid, 'SIGKILL');
        // It holds the ports until it is gone.
        for (const until = Date.now() + startDeadlineMs; isRunning(found.pid, found.start) && Date.now() < until; ) await sleep(5);
      }
    }
    return this.#spawn();
  }

  async #spawn(): Promise<ControlConnection> {
    rmSync(this.#socketPath, { force: true });
    const { near: hostAddress } = linkAddresses(this.#instance.subnet, 0);
    const settings = { netns: this.#instance.gatewayNetns, controlSocket: this.#socketPath, hostAddress, subnet: this.#instance.subnet.text, ...this.#options };
    // A file, not a pipe: the process writes on after this server has gone.
    const log = openSync(join(this.#dir, 'log'), 'a', 0o600);
    const child = spawn(process.execPath, [...egressFlags, program], {
      stdio: ['ignore', log, log],
      detached: true,
      // Settings may hold a proxy's password, which does not belong on a command line.
      env: { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin', PADDOCK_EGRESS: JSON.stringify(settings) },
    });
    closeSync(log);
    child.unref();
    let exit: string | null = null;
    child.once('exit', (code, signal) => (exit = signal ?? `exit code ${code}`));
    child.once('error', (reason) => (exit = reason.message));
    const deadline = Date.now() + startDeadlineMs;
    for (;;) {
      try {
        const connection = await ControlConnection.open(this.#socketPath, this.#listeners);
        writeFileSync(join(this.#dir, 'pid'), `${child.pid} ${startTime(child.pid!)}`);
        return connection;
      } catch (reason) {
        if (exit !== null) throw new Error(`it ended with ${exit}: ${this.#lastWords()}`, { cause: reason });
        if (Date.now() > deadline) {
          sendSignal(child.pid!, 'SIGKILL');
          throw new Error(`it did not answer within ${startDeadlineMs / 1000} s: ${(reason as Error).message}`, { cause: reason });
        }
        await sleep(5);
      }
    }
  }

  #take(connection: ControlConnection): void {
    this.#connection = connection;
    this.#connected.resolve(connection);
  }

  #lose(connection: ControlConnection): void {
    if (this.#connection !== connection) return;
    this.#connection = null;
    this.#connected = Promise.withResolvers();
    this.#connected.promise.catch(() => {});
    if (!this.#closed) void this.#recover();
  }

  /** After a death of the process: until it is back and has its table, nothing of any guest leaves. */
  async #recover(): Promise<void> {
    this.#log.warn({}, 'the egress proxy has gone; starting it again');
    while (!this.#closed && this.#connection === null) {
      try {
        const connection = await this.#reach();
        await this.#sendTable(connection);
        if (this.#closed) connection.close();
        else this.#take(connection);
      } catch (reason) {
        this.#log.error({ err: reason }, 'the egress proxy could not be started; trying again');
        await sleep(restartPauseMs);
      }
    }
  }

  async #sendTable(connection: ControlConnection): Promise<void> {
    for (let sent = -1; sent !== this.#version; ) {
      sent = this.#version;
      for (const failure of await connection.table([...this.#entries.values()].map((entry) => this.#asTold(entry)))) this.#log.error(failure, 'the rules of a sandbox could not be put in force; it reaches nothing');
    }
  }

  async #pass(connection: ControlConnection, batch: EventBatch): Promise<void> {
    for (;;) {
      try {
        if (batch.dropped > 0) this.#log.warn({ dropped: batch.dropped, of: batch.event }, 'events of the network were dropped because they came too fast');
        await (batch.event === 'connections' ? this.#onConnections(batch.items) : this.#onInspections(batch.items));
        return connection.acknowledge(batch);
      } catch (reason) {
        this.#log.warn({ err: reason }, 'events of the network could not be stored; trying again');
        await sleep(1000);
        if (this.#closed || connection.ended) return; // the next connection gets the batch again
      }
    }
  }

  #readPid(): { pid: number; start: string } | null {
    try {
      const [pid, start] = readFileSync(join(this.#dir, 'pid'), 'utf8').split(' ');
      return pid === undefined || start === undefined ? null : { pid: Number(pid), start };
    } catch {
      return null;
    }
  }

  #lastWords(): string {
    try {
      return readFileSync(join(this.#dir, 'log'), 'utf8').trim().slice(-500);
    } catch {
      return '';
    }
  }
}
