import { setTimeout as sleep } from 'node:timers/promises';
import type { Duplex } from 'node:stream';
import type { PaddockError } from '../../core/errors.ts';
import type { Guest, GuestIdentity, OutputEvent, ProcessInfo, ProcessSpec, StartedProcess, VolumeMount } from '../../core/host.ts';
import type { Limits } from '../../core/template.ts';
import { readJson } from './answer.ts';
import { type AgentAnswer, AgentConnection, type AgentRequest } from './connection.ts';
import { AgentRefusal } from './errors.ts';
import { AgentFiles } from './files.ts';
import { readOutput } from './followed.ts';
import { AgentProtocolError, type Json, numberField, parseStarted } from './frames.ts';
import { parseProcess, processBody } from './processes.ts';

export { agentPort } from './connection.ts';

/** The version that new guests speak. Those of an earlier server, which may have outlived it, speak the one before. */
export const agentProtocol = 2;

/** Any address would do: questions to whatever server are answered by the egress proxy's resolver. This one clients may expect. */
const nameServer = '8.8.8.8';

/**
 * Typed client of the agent in one guest (docs/agent-protocol.md), with a pool of connections of its own. Trusts nothing that
 * comes back. After `end` every call, running or new, fails with the error given there.
 */
export class AgentClient implements Guest {
  readonly files: AgentFiles;
  readonly #connection: AgentConnection;

  /** @param isAlive whether the guest's process runs, to tell a death from a fault before anybody has noticed it. */
  constructor(address: string, token: string | null, isAlive: () => boolean) {
    this.#connection = new AgentConnection(address, token, isAlive);
    this.files = new AgentFiles(this.#connection);
  }

  /** Gives the guest its identity. */
  async claim(identity: GuestIdentity, machineId: string, entropy: Uint8Array, limits: Limits, signal: AbortSignal): Promise<void> {
    const json = identityBody(identity, machineId, entropy, limits);
    assertSpoken(await this.#connection.json({ method: 'POST', path: '/v1/claim', json, signal }));
    this.#connection.token = identity.agentToken;
  }

  /**
   * Replaces the identity of a guest that has one, which a restored guest must get before anything else. An empty machine id leaves
   * the guest the one it has. Also works while the client is held. On failure the guest may have either token.
   */
  async reidentify(identity: GuestIdentity, machineId: string, entropy: Uint8Array, limits: Limits, signal: AbortSignal): Promise<void> {
    await this.#become(identity.agentToken, identityBody(identity, machineId, entropy, limits), signal);
  }

  /** The same guest, told anew what its processes get from now on. Leaves what its owner may have changed: its name, its resolver. */
  async refresh(identity: GuestIdentity, limits: Limits, signal: AbortSignal): Promise<void> {
    await this.#become(identity.agentToken, { ...identityBody(identity, '', new Uint8Array(), limits), hostname: '', nameservers: [] }, signal);
  }

  async #become(token: string, json: object, signal: AbortSignal): Promise<void> {
    const connection = this.#connection;
    // When an answer is lost, which token is the right one now must be found out.
    const tokens = [connection.token ?? '', token, connection.token ?? ''];
    for (const [attempt, tried] of tokens.entries()) {
      try {
        const { body } = await connection.exchange({ method: 'POST', path: '/v1/identity', json, kind: 'host', token: tried, signal });
        assertSpoken(await readJson(body));
        connection.token = token;
        return;
      } catch (reason) {
        const wasLost = connection.isBroken(reason, signal);
        const wasOld = attempt > 0 && reason instanceof AgentRefusal && reason.status === 401;
        if (attempt === tokens.length - 1 || !(wasLost || wasOld)) throw connection.translate(reason, true);
      }
    }
  }

  /** Binds what the host has mounted at each number to the path where it is wanted. May be repeated. */
  async mount(volumes: readonly VolumeMount[], signal: AbortSignal): Promise<void> {
    const mounts = volumes.map(({ mountPath, readOnly }, point) => ({ point: String(point), path: mountPath, read_only: readOnly }));
    await this.#json({ method: 'POST', path: '/v1/mounts', json: { mounts }, signal });
  }

  /** Resolves when the agent answers at all; a booting guest refuses connections for some milliseconds. Also works while the client is held. */
  async untilListening(signal: AbortSignal, deadlineMs = 20_000): Promise<void> {
    const deadline = Date.now() + deadlineMs;
    for (let pause = 2; ; pause = Math.min(pause * 1.5, 50)) {
      try {
        assertSpoken(await this.#connection.json({ method: 'GET', path: '/v1/health', kind: 'host', signal, deadlineMs: 2_000 }));
        return;
      } catch (reason) {
        if (signal.aborted || this.#connection.ended.aborted || reason instanceof AgentProtocolError || Date.now() > deadline) throw reason;
        await sleep(pause, undefined, { signal });
      }
    }
  }

  /**
   * Prepares for a checkpoint: when this resolves, no connection to the agent is open. New requests wait for `release`, and their deadlines
   * with them. Calls under way may take so long to end; then they are cut. Followed output is cut and goes on after `release`, which its
   * readers do not notice. File transfers and tunnels fail with `conflict`.
   */
  hold(settleMs: number): Promise<void> {
    return this.#connection.hold(settleMs);
  }

  /** Lets requests through again. Does nothing to a client that is not held. */
  release(): void {
    this.#connection.release();
  }

  /** Fails everything that runs with this error, and all later calls too. */
  end(error: PaddockError): void {
    this.#connection.end(error);
  }

  async *run(spec: ProcessSpec, signal: AbortSignal): AsyncGenerator<OutputEvent> {
    const answer = await this.request({ method: 'POST', path: '/v1/start-and-follow', json: processBody(spec), signal });
    yield* readOutput(this.#connection, { id: null, after: 0, follow: true }, signal, answer);
  }

  async start(spec: ProcessSpec, signal: AbortSignal): Promise<StartedProcess> {
    return parseStarted(await this.#json({ method: 'POST', path: '/v1/processes', json: processBody(spec), signal }));
  }

  output(id: string, after: number, follow: boolean, signal: AbortSignal): AsyncGenerator<OutputEvent> {
    return readOutput(this.#connection, { id, after, follow }, signal);
  }

  async processes(signal: AbortSignal): Promise<readonly ProcessInfo[]> {
    const { processes } = await this.#json({ method: 'GET', path: '/v1/processes', signal });
    if (!Array.isArray(processes)) throw new AgentProtocolError('no list of processes');
    return processes.map((item) => parseProcess(item as Json));
  }

  async process(id: string, signal: AbortSignal): Promise<ProcessInfo> {
    return parseProcess(await this.#json({ method: 'GET', path: `/v1/processes/${id}`, signal }));
  }

  async writeStdin(id: string, data: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.#json({ method: 'POST', path: `/v1/processes/${id}/stdin`, body: data, signal });
  }

  async closeStdin(id: string, signal: AbortSignal): Promise<void> {
    await this.#json({ method: 'POST', path: `/v1/processes/${id}/stdin/close`, signal });
  }

  async resize(id: string, size: { cols: number; rows: number }, signal: AbortSignal): Promise<void> {
    await this.#json({ method: 'POST', path: `/v1/processes/${id}/resize`, json: size, signal });
  }

  async sendSignal(id: string, name: string, signal: AbortSignal): Promise<boolean> {
    return (await this.#json({ method: 'POST', path: `/v1/processes/${id}/signal`, json: { signal: name, group: true }, signal }))['delivered'] === true;
  }

  async removeProcess(id: string, signal: AbortSignal): Promise<boolean> {
    return (await this.#json({ method: 'DELETE', path: `/v1/processes/${id}`, signal }))['killed'] === true;
  }

  tunnel(port: number, signal: AbortSignal): Promise<Duplex> {
    return this.#connection.tunnel(port, signal);
  }

  /** One exchange; the answer's body is the caller's to read or destroy. Error answers are thrown. */
  request(request: AgentRequest): Promise<AgentAnswer> {
    return this.#connection.request(request);
  }

  #json(request: AgentRequest): Promise<Json> {
    return this.#connection.json(request);
  }
}

function identityBody(identity: GuestIdentity, machineId: string, entropy: Uint8Array, limits: Limits): object {
  return {
    sandbox_id: identity.sandboxId,
    token: identity.agentToken,
    hostname: identity.hostname,
    machine_id: machineId,
    entropy: Buffer.from(entropy).toString('base64'),
    default_user: identity.defaultUser,
    sudo: identity.sudo,
    env: identity.env,
    ca_certificate: identity.certificate ?? '',
    nameservers: [nameServer],
    limits: { pids: limits.pids, memory_bytes: limits.memoryMb * 1024 * 1024 },
  };
}

/** The current version of the protocol and the one before it are spoken. */
function assertSpoken(answer: Json): void {
  const version = numberField(answer, 'protocol');
  if (version !== agentProtocol && version !== agentProtocol - 1) throw new AgentProtocolError(`version ${version}`);
}
