import { resolve } from 'node:path';
import { endsInNumber, parseIpv4 } from '../../core/network/addresses.ts';
import { BuildFailure } from '../../core/templates/build-host.ts';
import { type Digest, parseDigest } from './digest.ts';

/** An image in a registry: by digest if there is one, otherwise by tag. */
export interface RegistryReference {
  readonly kind: 'registry';
  /** `host` or `host:port` in lower case; Docker Hub is `docker.io`. */
  readonly registry: string;
  readonly repository: string;
  readonly tag: string | null;
  readonly digest: Digest | null;
}

/** An OCI image layout: a directory, or a tar of one. */
export interface LayoutReference {
  readonly kind: 'layout';
  readonly path: string;
  readonly tag: string | null;
}

/** What `docker save` writes. */
export interface ArchiveReference {
  readonly kind: 'docker-archive';
  readonly path: string;
  readonly tag: string | null;
}

export type ImageReference = RegistryReference | LayoutReference | ArchiveReference;

export const dockerHub = 'docker.io';

const longest = 4096;
const longestRepository = 255;
const component = /^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*$/;
const tagForm = /^\w[\w.-]{0,127}$/;

/**
 * Reads a reference in the spelling of Docker, or `oci:` or `docker-archive:` with an absolute path.
 *
 * @throws BuildFailure `bad_reference`
 */
export function parseReference(text: string, allowPaths: boolean): ImageReference {
  const wrong = (problem: string): BuildFailure => new BuildFailure('bad_reference', `"${text.slice(0, 200)}" ${problem}`);
  // eslint-disable-next-line no-control-regex -- these are what must not be there
  if (text.length > longest || /[\s\u0000-\u001f\u007f]/.test(text)) throw wrong(`is no image: a reference has no spaces and at most ${longest} characters`);
  const [, scheme, rest = ''] = /^([a-z-]+):(.*)$/.exec(text) ?? [];
  if (scheme === 'oci' || scheme === 'docker-archive') {
    if (!allowPaths) throw wrong('names a file of this machine, which only its operator may: name an image in a registry');
    const colon = rest.indexOf(':');
    const [path, tag] = colon < 0 ? [rest, null] : [rest.slice(0, colon), rest.slice(colon + 1)];
    if (!path.startsWith('/')) throw wrong(`must name an absolute path: ${scheme}:/path or ${scheme}:/path:tag`);
    if (tag !== null && !/^[\w][\w./:@-]{0,254}$/.test(tag)) throw wrong('has a tag that cannot be');
    return Object.freeze({ kind: scheme === 'oci' ? 'layout' : 'docker-archive', path: resolve(path), tag });
  }
  if (rest.startsWith('//')) throw wrong(`begins with ${scheme}://: leave that out`);
  return parseRegistryReference(text, wrong);
}

function parseRegistryReference(text: string, wrong: (problem: string) => BuildFailure): RegistryReference {
  const at = text.indexOf('@');
  const digest = at < 0 ? null : parseDigest(text.slice(at + 1));
  if (at >= 0 && digest === null) throw wrong('has a digest that is not sha256: and 64 hexadecimal digits in lower case');
  const named = at < 0 ? text : text.slice(0, at);
  const slash = named.indexOf('/');
  const first = slash < 0 ? '' : named.slice(0, slash);
  const hasHost = first === 'localhost' || /[.:[]/.test(first);
  const host = hasHost ? first.toLowerCase() : dockerHub;
  const path = hasHost ? named.slice(slash + 1) : named;
  const colon = path.lastIndexOf(':');
  const tag = colon < 0 ? null : path.slice(colon + 1);
  if (tag !== null && !tagForm.test(tag)) throw wrong('has a tag that cannot be: letters, digits, dots, dashes and underscores, at most 128');
  const name = colon < 0 ? path : path.slice(0, colon);
  const registry = host === 'index.docker.io' || host === 'registry-1.docker.io' ? dockerHub : host;
  if (!isHost(registry)) throw wrong('has a registry that is not host or host:port, with a name or an IPv4 address');
  const repository = registry === dockerHub && !name.includes('/') ? `library/${name}` : name;
  if (repository.length > longestRepository || !repository.split('/').every((part) => component.test(part))) {
    throw wrong(`is no image: names of repositories have lower-case letters, digits, and single dots, dashes and underscores between them, at most ${longestRepository} characters`);
  }
  return Object.freeze({ kind: 'registry', registry, repository, tag: tag ?? (digest === null ? 'latest' : null), digest });
}

/** Whether the text is `host` or `host:port`. An address has to be spelt as everybody reads it. */
export function isHost(text: string): boolean {
  const [, host = '', port] = /^([a-z0-9.-]{1,253})(?::([1-9]\d{0,4}))?$/.exec(text) ?? [];
  if (port !== undefined && Number(port) > 65_535) return false;
  if (endsInNumber(host)) return parseIpv4(host) !== null;
  return host.split('.').every((label) => /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(label));
}

/** As people write it. */
export function describeReference(reference: ImageReference): string {
  if (reference.kind !== 'registry') return `${reference.kind === 'layout' ? 'oci' : 'docker-archive'}:${reference.path}${reference.tag === null ? '' : `:${reference.tag}`}`;
  const { registry, repository, tag, digest } = reference;
  return `${registry}/${repository}${tag === null ? '' : `:${tag}`}${digest === null ? '' : `@${digest}`}`;
}
