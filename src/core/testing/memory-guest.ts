import { once } from 'node:events';
import { Duplex, Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../errors.ts';
import type { FileEntry, Guest, GuestFiles, OutputEvent, ProcessExit, ProcessInfo, ProcessSpec, StartedProcess } from '../host.ts';

/** Lines of a toy shell: `print x`, `err x`, `bytes 6869`, `sleep ms`, `exit n`, `cat` (echoes standard input to its end). */
class MemoryProcess {
  readonly started: StartedProcess;
  readonly spec: ProcessSpec;
  readonly entries: OutputEvent[] = [];
  readonly changed = new EventTarget();
  readonly stdin: (Buffer | null)[] = [];
  exit: ProcessExit | null = null;
  readonly #ended = new AbortController();

  constructor(started: StartedProcess, spec: ProcessSpec) {
    this.started = started;
    this.spec = spec;
    void this.#run();
  }

  /** As it is in a checkpoint: what it wrote, and, if it runs, still running until it is ended. */
  copy(): MemoryProcess {
    const copy = new MemoryProcess(this.started, { ...this.spec, cmd: this.exit === null ? 'cat' : 'exit 0' });
    copy.entries.push(...this.entries);
    copy.exit = this.exit;
    return copy;
  }

  print(type: 'stdout' | 'stderr' | 'terminal', data: Buffer): void {
    if (this.exit === null) this.#add({ type, entry: this.entries.length + 1, data });
  }

  end(exit: ProcessExit): boolean {
    if (this.exit !== null) return false;
    this.exit = exit;
    this.#ended.abort();
    this.#add({ type: 'exit', entry: this.entries.length + 1, exit });
    return true;
  }

  wake(): void {
    this.changed.dispatchEvent(new Event('change'));
  }

  #add(event: OutputEvent): void {
    this.entries.push(event);
    this.wake();
  }

  async #run(): Promise<void> {
    const out = this.spec.kind === 'pty' ? 'terminal' : 'stdout';
    for (const line of this.spec.cmd === '' ? ['cat'] : this.spec.cmd.split(';').map((each) => each.trim())) {
      await null;
      if (this.exit !== null) return;
      const [word = '', ...rest] = line.split(' ');
      const argument = rest.join(' ');
      if (word === 'print') this.print(out, Buffer.from(argument));
      else if (word === 'err') this.print('stderr', Buffer.from(argument));
      else if (word === 'bytes') this.print(out, Buffer.from(argument, 'hex'));
      else if (word === 'env') this.print(out, Buffer.from(this.spec.env?.[argument] ?? ''));
      else if (word === 'sleep') await sleep(Number(argument), undefined, { signal: this.#ended.signal }).catch(() => undefined);
      else if (word === 'exit') this.end({ exitCode: Number(argument), signal: null, reason: 'exited' });
      else if (word === 'cat') {
        for (let i = 0; ; i++) {
          while (this.stdin.length <= i && this.exit === null) await once(this.changed, 'change');
          const data = this.stdin[i];
          if (data === null || data === undefined) break;
          this.print(out, data);
        }
      }
    }
    this.end({ exitCode: 0, signal: null, reason: 'exited' });
  }
}

/** A guest made of memory, with processes that obey a toy shell. Only what the core asks of a guest is here. */
export class MemoryGuest implements Guest {
  readonly processes_ = new Map<string, MemoryProcess>();
  readonly files = new MemoryFiles();
  readonly #gone = new AbortController();
  #ids = 0;
  #pids = 10;

  /** Another guest with the same memory and files. */
  copy(): MemoryGuest {
    const copy = new MemoryGuest();
    for (const [id, process] of this.processes_) copy.processes_.set(id, process.copy());
    copy.files.copyFrom(this.files);
    [copy.#ids, copy.#pids] = [this.#ids, this.#pids];
    return copy;
  }

  /** Makes every call fail from now on, as when the guest has died, or been let go with another reason. */
  die(reason = new PaddockError('gone', 'the guest is gone')): void {
    this.#gone.abort(reason);
    for (const process of this.processes_.values()) process.end({ exitCode: 137, signal: 'SIGKILL', reason: 'signaled' });
  }

  /** The next process gets this pid, as when pids come round. */
  reusePid(pid: number): void {
    this.#pids = pid - 1;
  }

  async *run(spec: ProcessSpec, signal: AbortSignal): AsyncIterable<OutputEvent> {
    const process = await this.start(spec, signal);
    yield { type: 'started', process };
    yield* this.output(process.id, 0, true, signal);
  }

  async start(spec: ProcessSpec, signal: AbortSignal): Promise<StartedProcess> {
    await this.#enter(signal);
    if (spec.user === 'nobody-here') throw new PaddockError('invalid_argument', 'no such user');
    const process = new MemoryProcess({ id: `p${++this.#ids}`, pid: ++this.#pids, startedAt: Date.now() }, spec);
    this.processes_.set(process.started.id, process);
    return process.started;
  }

  async *output(id: string, after: number, follow: boolean, signal: AbortSignal): AsyncIterable<OutputEvent> {
    await this.#enter(signal);
    const process = this.#find(id);
    const both = AbortSignal.any([signal, this.#gone.signal]);
    for (let i = after; ; i++) {
      while (process.entries.length <= i) {
        if (!follow || !this.processes_.has(id)) return;
        both.throwIfAborted();
        await once(process.changed, 'change', { signal: both }).catch(() => both.throwIfAborted());
      }
      both.throwIfAborted();
      const event = process.entries[i];
      if (event === undefined) return;
      yield event;
      if (event.type === 'exit') return;
    }
  }

  async processes(signal: AbortSignal): Promise<readonly ProcessInfo[]> {
    await this.#enter(signal);
    return [...this.processes_.values()].map(info);
  }

  async process(id: string, signal: AbortSignal): Promise<ProcessInfo> {
    await this.#enter(signal);
    return info(this.#find(id));
  }

  async writeStdin(id: string, data: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.#enter(signal);
    const process = this.#find(id);
    if (!process.spec.stdin || process.exit !== null) throw new PaddockError('conflict', 'standard input is closed');
    process.stdin.push(Buffer.from(data));
    process.wake();
  }

  async closeStdin(id: string, signal: AbortSignal): Promise<void> {
    await this.#enter(signal);
    const process = this.#find(id);
    process.stdin.push(null);
    process.wake();
  }

  async resize(id: string, size: { readonly cols: number; readonly rows: number }, signal: AbortSignal): Promise<void> {
    await this.#enter(signal);
    this.#find(id).print('terminal', Buffer.from(`${size.cols}x${size.rows}`));
  }

  async sendSignal(id: string, name: string, signal: AbortSignal): Promise<boolean> {
    await this.#enter(signal);
    return this.#find(id).end({ exitCode: 137, signal: name, reason: 'signaled' });
  }

  async removeProcess(id: string, signal: AbortSignal): Promise<boolean> {
    await this.#enter(signal);
    const process = this.#find(id);
    const killed = process.end({ exitCode: 137, signal: 'SIGKILL', reason: 'signaled' });
    this.processes_.delete(id);
    process.wake();
    return killed;
  }

  async tunnel(port: number, signal: AbortSignal): Promise<Duplex> {
    await this.#enter(signal);
    if (port !== 8080) throw new PaddockError('not_listening', `nothing listens on port ${port}`);
    return new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
  }

  async #enter(signal: AbortSignal): Promise<void> {
    await null;
    signal.throwIfAborted();
    this.#gone.signal.throwIfAborted();
  }

  #find(id: string): MemoryProcess {
    const process = this.processes_.get(id);
    if (process === undefined) throw new PaddockError('not_found', `no process ${id}`);
    return process;
  }
}

class MemoryFiles implements GuestFiles {
  readonly #files = new Map<string, Buffer>();

  copyFrom(other: MemoryFiles): void {
    for (const [path, data] of other.#files) this.#files.set(path, data);
  }

  async read(path: string): Promise<{ size: number; body: Readable }> {
    const data = this.#file(path);
    return { size: data.length, body: Readable.from([data]) };
  }

  async write(path: string, _user: string | undefined, body: Readable | Uint8Array): Promise<{ path: string; size: number }> {
    const chunks: Buffer[] = [];
    if (body instanceof Uint8Array) chunks.push(Buffer.from(body));
    else for await (const chunk of body) chunks.push(chunk as Buffer);
    const data = Buffer.concat(chunks);
    this.#files.set(path, data);
    return { path, size: data.length };
  }

  async list(path: string): Promise<{ entries: FileEntry[]; truncated: boolean }> {
    return { entries: [...this.#files.keys()].filter((name) => name.startsWith(`${path}/`)).map((name) => this.#entry(name)), truncated: false };
  }

  async info(path: string): Promise<FileEntry> {
    this.#file(path);
    return this.#entry(path);
  }

  async remove(path: string): Promise<boolean> {
    return this.#files.delete(path);
  }

  async rename(from: string, to: string): Promise<FileEntry> {
    this.#files.set(to, this.#file(from));
    this.#files.delete(from);
    return this.#entry(to);
  }

  /** As an agent of before archives. */
  async unpack(): Promise<boolean> {
    return false;
  }

  async pack(): Promise<null> {
    return null;
  }

  async makeDir(): Promise<boolean> {
    return true;
  }

  #file(path: string): Buffer {
    const data = this.#files.get(path);
    if (data === undefined) throw new PaddockError('not_found', `no such file: ${path}`);
    return data;
  }

  #entry(path: string): FileEntry {
    return { name: path.split('/').at(-1) ?? '', path, type: 'file', size: this.#file(path).length, mode: 0o644, uid: 1000, gid: 1000, modifiedAt: 0 };
  }
}

function info(process: MemoryProcess): ProcessInfo {
  const { spec, started, exit } = process;
  return { ...started, cmd: spec.cmd, kind: spec.kind, user: spec.user ?? 'user', cwd: spec.cwd ?? '/', env: spec.env ?? {}, tag: spec.tag ?? '', running: exit === null, exit };
}
