import type { Duplex } from 'node:stream';
import { goneError, unusable } from './ended.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { SandboxId, SandboxRef } from './ids.ts';
import type { Principal } from './principal.ts';
import type { PreviewAccess, Sandbox } from './sandbox.ts';
import type { Sandboxes } from './sandboxes.ts';
import type { PreviewPort, Store } from './store.ts';

interface PreviewsDeps {
  readonly sandboxes: Sandboxes;
  readonly store: Store;
  readonly events: EventLog;
}

const firstPort = 1024;
const lastPort = 65_535;
/** Where the agent listens: reaching it from outside would go round every check. */
const agentPort = 49_983;
const mostPorts = 100;

/** Ports of sandboxes that are published at host names of their own. */
export class Previews {
  readonly #deps: PreviewsDeps;

  constructor(deps: PreviewsDeps) {
    this.#deps = deps;
  }

  async list(principal: Principal, ref: SandboxRef): Promise<{ readonly access: PreviewAccess; readonly ports: readonly PreviewPort[] }> {
    const sandbox = await this.#alive(principal, ref);
    return { access: sandbox.policy.previews, ports: await this.#deps.store.previewPorts.list(sandbox.id) };
  }

  /** Without `access`, a new port gets the sandbox's and one that is published keeps its own. Throws `conflict` for a private port where all are open. */
  async publish(principal: Principal, ref: SandboxRef, port: number, access: PreviewPort['access'] | null): Promise<PreviewPort> {
    assertPreviewPort(port);
    const { store, events } = this.#deps;
    const sandbox = await this.#alive(principal, ref);
    const all = sandbox.policy.previews;
    if (all === 'legacy_public' && access === 'private') {
      throw new PaddockError('conflict', 'every port of this sandbox is open (preview_access legacy_public), so none can be private; set preview_access to public or private first');
    }
    const published = await store.previewPorts.list(sandbox.id);
    if (published.length >= mostPorts && !published.some((each) => each.port === port)) {
      throw new PaddockError('conflict', `${published.length} ports are published, and the limit is ${mostPorts}; unpublish one first`);
    }
    const row = await store.previewPorts.publish(sandbox.id, port, access ?? (all === 'private' ? 'private' : 'public'), access);
    events.ofSandbox(sandbox, 'admin', 'port_published', { port, access: row.access });
    return row;
  }

  async unpublish(principal: Principal, ref: SandboxRef, port: number): Promise<void> {
    assertPreviewPort(port);
    const sandbox = await this.#alive(principal, ref);
    await this.#deps.store.previewPorts.unpublish(sandbox.id, port);
    this.#deps.events.ofSandbox(sandbox, 'admin', 'port_unpublished', { port });
  }

  /** A published private port, for whoever makes tokens for it. Throws `not_found`, and `conflict` for a public one. */
  async private(principal: Principal, ref: SandboxRef, port: number, rotate = false): Promise<{ readonly sandbox: Sandbox; readonly port: PreviewPort }> {
    assertPreviewPort(port);
    const { store, events } = this.#deps;
    const sandbox = await this.#alive(principal, ref);
    const row = await store.previewPorts.find(sandbox.id, port);
    if (row === null) throw new PaddockError('not_found', `port ${port} is not published; publish it first`);
    if (row.access === 'public') throw new PaddockError('conflict', `port ${port} is public and needs no token; publish it with access private first`);
    if (!rotate) return { sandbox, port: row };
    const rotated = await store.previewPorts.rotate(sandbox.id, port);
    if (rotated === null) throw new PaddockError('not_found', `port ${port} is not published any more`);
    events.ofSandbox(sandbox, 'admin', 'preview_tokens_rotated', { port });
    return { sandbox, port: rotated };
  }

  /**
   * Who may come in through a port. Null for what must look as if it were not there: an unknown or ended sandbox, a port that cannot be
   * previewed or is not published.
   */
  async visit(id: SandboxId, port: number): Promise<{ readonly sandbox: Sandbox; readonly needs: { readonly tokenVersion: number } | null } | null> {
    if (!isPreviewPort(port)) return null;
    const sandbox = await this.#deps.store.sandboxes.find(null, { id });
    if (sandbox === null || sandbox.end !== null || !sandbox.policy.allowPublicTraffic) return null;
    if (sandbox.policy.previews === 'legacy_public') return { sandbox, needs: null };
    const row = await this.#deps.store.previewPorts.find(id, port);
    if (row === null) return null;
    return { sandbox, needs: row.access === 'public' ? null : { tokenVersion: row.tokenVersion } };
  }

  /** A connection to the port, for a visit that was let in. Throws `conflict` when the sandbox does not run, `not_listening`. */
  async open(sandbox: Sandbox, port: number, signal: AbortSignal): Promise<Duplex> {
    const reason = unusable(sandbox);
    if (reason !== null) throw reason;
    const { sandboxes } = this.#deps;
    const guest = sandboxes.guestOf(sandbox.id);
    try {
      if (guest === null) throw new PaddockError('gone', 'the sandbox has no guest');
      return await guest.tunnel(port, signal);
    } catch (error) {
      throw await sandboxes.explain(sandbox, error);
    }
  }

  async #alive(principal: Principal, ref: SandboxRef): Promise<Sandbox> {
    const sandbox = await this.#deps.sandboxes.get(principal, ref);
    if (sandbox.end !== null) throw goneError(sandbox.end);
    return sandbox;
  }
}

export function isPreviewPort(port: number): boolean {
  return Number.isInteger(port) && port >= firstPort && port <= lastPort && port !== agentPort;
}

function assertPreviewPort(port: number): void {
  if (!isPreviewPort(port)) throw new PaddockError('invalid_argument', `port must be from ${firstPort} to ${lastPort} and not ${agentPort}, which is the sandbox's agent, but is ${port}`, { field: 'port' });
}
