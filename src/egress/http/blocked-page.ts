import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { formatAddress } from '../../core/network/addresses.ts';
import type { Destination, Verdict } from '../../core/network/decide.ts';
import type { Refusal } from '../pipeline/stage.ts';

const lingerMs = 2000;

/** Headers and body of an answer of this proxy's own. */
export interface OwnAnswer {
  readonly headers: Record<string, string>;
  readonly body: string;
}

/** What a request is answered with that is refused for what is in it, or that has failed, for agents and for the SDKs of the contracts to read. */
export function refusalBody({ code, message, verdict }: Refusal, host: string | null, port: number): OwnAnswer {
  const body = `${JSON.stringify({ error: code, host, port, reason: message, retry: verdict === 'failed' })}\n`;
  return { headers: { ...headersOf(body, code, message), 'X-Paddock-Error': code }, body };
}

function headersOf(body: string, code: string, reason: string): Record<string, string> {
  return {
    'Content-Type': 'application/json',
    'Content-Length': String(Buffer.byteLength(body)),
    'Cache-Control': 'no-store',
    'X-Superserve-Proxy-Error': code,
    'X-Superserve-Proxy-Reason': reason.replaceAll(/[^ -~]/g, '?').slice(0, 1000),
  };
}

/** What a blocked HTTP request is answered with, for agents to read: a retry would get the same. */
export function blockedBody({ name, address, port }: Destination, { matchRule, rule, reason }: Verdict): OwnAnswer {
  const host = name ?? (address === null ? null : formatAddress(address));
  const body = `${JSON.stringify({ error: 'egress_blocked', host, port, rule: rule ?? matchRule, reason, retry: false })}\n`;
  return { headers: { ...headersOf(body, 'egress_blocked', reason), 'X-Paddock-Blocked': matchRule, Connection: 'close' }, body };
}

/** Answers on a connection that no HTTP server has taken, and ends it. What the client still sends is read, or the kernel would take the answer back. */
export function blockedPage(client: Socket, destination: Destination, verdict: Verdict): void {
  const { headers, body } = blockedBody(destination, verdict);
  endWith(client, 403, headers, body);
}

export function endWith(client: Socket, status: number, headers: Record<string, string>, body: string): void {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  client.end(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${lines.join('')}\r\n${body}`);
  client.removeAllListeners('data');
  client.on('data', () => {});
  client.resume();
  client.setTimeout(lingerMs, () => client.destroy());
  setTimeout(() => client.destroy(), lingerMs).unref();
}
