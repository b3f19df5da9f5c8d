import type { WebSocket } from 'ws';
import type { SandboxId } from '../../core/ids.ts';
import type { Principal } from '../../core/principal.ts';
import type { Processes } from '../../core/processes.ts';

/** Milliseconds a closing handshake may take. */
const closeMs = 2_000;

/** What a session needs of the sandbox it works in. */
export interface SessionContext {
  readonly processes: Processes;
  readonly principal: Principal;
  readonly id: SandboxId;
}

/** Closes in the polite way, and for sure. */
export function shut(socket: WebSocket, code: number, reason: string): void {
  socket.close(code, reason.slice(0, 120));
  setTimeout(() => socket.terminate(), closeMs).unref();
}
