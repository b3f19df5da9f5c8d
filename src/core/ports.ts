import type { Duplex } from 'node:stream';
import { PaddockError } from './errors.ts';
import type { SandboxRef } from './ids.ts';
import type { Principal } from './principal.ts';
import type { Sandboxes } from './sandboxes.ts';

/** Where the agent listens: reaching it from outside would go round every check. */
const agentPort = 49_983;

/** Access from outside to programs that listen inside a sandbox. */
export class Ports {
  readonly #sandboxes: Sandboxes;

  constructor(deps: { readonly sandboxes: Sandboxes }) {
    this.#sandboxes = deps.sandboxes;
  }

  /**
   * A connection to a port on the sandbox's loopback. Without a principal (a preview that needs no key) only public
   * sandboxes are found. Throws `invalid_argument`, `permission_denied`, `not_listening`.
   */
  async open(principal: Principal | null, ref: SandboxRef, port: number, signal: AbortSignal): Promise<Duplex> {
    if (!Number.isInteger(port) || port < 1 || port > 65_535) {
      throw new PaddockError('invalid_argument', `a port is a number from 1 to 65535, not ${port}`, { field: 'port' });
    }
    if (port === agentPort) throw new PaddockError('permission_denied', `port ${agentPort} belongs to the sandbox's agent and cannot be reached from outside`);
    const { sandbox, guest } = principal === null ? await this.#sandboxes.usePublic(ref) : await this.#sandboxes.use(principal, ref);
    if (!sandbox.policy.allowPublicTraffic) {
      throw new PaddockError('permission_denied', 'the sandbox was created with allow_public_traffic false, so its ports cannot be reached from outside');
    }
    try {
      return await guest.tunnel(port, signal);
    } catch (error) {
      throw await this.#sandboxes.explain(sandbox, error);
    }
  }
}
