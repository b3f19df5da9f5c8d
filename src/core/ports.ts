import type { Duplex } from 'node:stream';
import { PaddockError } from './errors.ts';
import type { SandboxRef } from './ids.ts';
import { hostSeenInside } from './policy.ts';
import type { Principal } from './principal.ts';
import type { Sandboxes } from './sandboxes.ts';

/** Where the agent listens: reaching it from outside would go round every check. */
const agentPort = 49_983;

/** Who wants to get in: a key's owner, whoever has the sandbox's traffic token, or anybody (a preview that needs neither). */
export type Visitor = Principal | { readonly trafficToken: string } | null;

/** A way to a program inside. */
export interface OpenPort {
  readonly tunnel: Duplex;
  /** The `Host` that the program shall see. */
  readonly host: string;
}

/** Access from outside to programs that listen inside a sandbox. */
export class Ports {
  readonly #sandboxes: Sandboxes;

  constructor(deps: { readonly sandboxes: Sandboxes }) {
    this.#sandboxes = deps.sandboxes;
  }

  /**
   * A connection to a port on the sandbox's loopback. Without key or token only public sandboxes are found. Throws
   * `invalid_argument`, `unauthenticated` for a token that is not of this sandbox, `permission_denied`, `not_listening`.
   */
  async open(visitor: Visitor, ref: SandboxRef, port: number, signal: AbortSignal): Promise<OpenPort> {
    if (!Number.isInteger(port) || port < 1 || port > 65_535) {
      throw new PaddockError('invalid_argument', `a port is a number from 1 to 65535, not ${port}`, { field: 'port' });
    }
    if (port === agentPort) throw new PaddockError('permission_denied', `port ${agentPort} belongs to the sandbox's agent and cannot be reached from outside`);
    const { sandbox, guest } = await this.#enter(visitor, ref);
    if (!sandbox.policy.allowPublicTraffic) {
      throw new PaddockError('permission_denied', 'the sandbox was created with allow_public_traffic false, so its ports cannot be reached from outside');
    }
    try {
      return { tunnel: await guest.tunnel(port, signal), host: hostSeenInside(sandbox.policy, port) };
    } catch (error) {
      throw await this.#sandboxes.explain(sandbox, error);
    }
  }

  #enter(visitor: Visitor, ref: SandboxRef): ReturnType<Sandboxes['use']> {
    if (visitor === null) return this.#sandboxes.usePublic(ref);
    return 'trafficToken' in visitor ? this.#sandboxes.useByToken(ref, visitor.trafficToken) : this.#sandboxes.use(visitor, ref);
  }
}
