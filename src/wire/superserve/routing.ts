import type { IncomingMessage } from 'node:http';
import type { SandboxId } from '../../core/ids.ts';
import { readSandboxId } from './ids.ts';

/** Where the router has the calls of this wire. */
export const controlPrefix = '/superserve';
/** Not a name that a client can ask for: what does not come through `route` has no target and is not found. */
export const agentPrefix = '/.superserve-agent';

/** Hosts of the control plane that the clients know (contract, sections 1.2 and 16). */
const controlHosts: ReadonlySet<string> = new Set(['api.superserve.ai', 'api-usw.superserve.ai', 'usw-api.superserve.ai', 'api-staging.superserve.ai']);
/** Domains of the data plane that they derive from those. */
export const knownDomains = ['sandbox.superserve.ai', 'usw-sandbox.superserve.ai', 'use-sandbox.superserve.ai', 'staging-sandbox.superserve.ai'] as const;

const routingHeader = 'x-superserve-sandbox-id';
const agentCalls: ReadonlySet<string> = new Set(['/exec', '/exec/stream', '/exec/connect', '/files', '/terminal']);

/** A call to the inside of a sandbox. */
export interface AgentTarget {
  /** Null when the name of the sandbox is none. */
  readonly id: SandboxId | null;
  /** The path, without the query. */
  readonly path: string;
}

/** A program inside a sandbox that is to be previewed. */
export interface PreviewTarget {
  readonly id: SandboxId;
  readonly port: number;
}

/** What a request is for: the inside of a sandbox, a preview, the control plane at `url`, or nothing of this wire. */
export type Route = { readonly to: 'agent'; readonly target: AgentTarget; readonly url: string } | { readonly to: 'preview'; readonly target: PreviewTarget } | { readonly to: 'control'; readonly url: string } | null;

/** Sorts requests by host, header and path (contract, section 1.3). */
export class Routing {
  readonly #domains: readonly string[];

  /** @param domain what this server calls its sandboxes' domain, besides those that the clients know. */
  constructor(domain: string) {
    this.#domains = [domain, ...knownDomains];
  }

  route(request: Pick<IncomingMessage, 'url' | 'headers'>): Route {
    // A request for a proxy names the host in its first line, and that one counts (RFC 9112, section 3.2.2).
    const [, absoluteHost, rest] = /^https?:\/\/([^/?#]*)(.*)$/is.exec(request.url ?? '/') ?? [];
    const url = absoluteHost === undefined ? (request.url ?? '/') : rest?.startsWith('/') ? rest : `/${rest ?? ''}`;
    const host = (absoluteHost ?? request.headers.host ?? '').toLowerCase().replace(/:\d*$/, '').replace(/\.$/, '');
    const path = singleSlashes(url.split('?', 1)[0]!);
    const query = url.slice(url.split('?', 1)[0]!.length);

    if (controlHosts.has(host)) return { to: 'control', url: `${controlPrefix}${path}${query}` };
    const named = request.headers[routingHeader];
    const isShared = this.#domains.includes(host);
    const onKnownDomain = isShared && host !== this.#domains[0];
    if (isShared && typeof named === 'string') return agent(named, path, query);
    if (onKnownDomain) return agent('', path, query);
    const label = this.#labelOf(host);
    if (label?.startsWith('boxd-') === true) return agent(label.slice('boxd-'.length), path, query);
    const preview = label === null ? null : readPreview(label);
    if (preview !== null) return { to: 'preview', target: preview };
    // By hand, or from a script that rewrites addresses: on the control plane's own port.
    const bare = path.startsWith(`${controlPrefix}/`) ? path.slice(controlPrefix.length) : path;
    if (typeof named === 'string' && agentCalls.has(bare)) return agent(named, bare, query);
    return path === controlPrefix || path.startsWith(`${controlPrefix}/`) ? { to: 'control', url: `${path}${query}` } : null;
  }

  #labelOf(host: string): string | null {
    const domain = this.#domains.find((each) => host.endsWith(`.${each}`));
    return domain === undefined ? null : host.slice(0, -domain.length - 1);
  }
}

function agent(name: string, path: string, query: string): Route {
  return { to: 'agent', target: { id: readSandboxId(name), path }, url: `${agentPrefix}${path}${query}` };
}

function readPreview(label: string): PreviewTarget | null {
  const [, digits = '', name = ''] = /^(\d{1,5})-(.+)$/.exec(label) ?? [];
  const id = readSandboxId(name);
  return id === null ? null : { id, port: Number(digits) };
}

/** A base URL with a slash at its end makes the clients ask for `//sandboxes`. */
function singleSlashes(path: string): string {
  return path.replaceAll(/\/{2,}/g, '/');
}
