import { isHost } from '../reference.ts';

/** Whom a request goes to. Lower case; the port is always there. */
export interface Endpoint {
  readonly secure: boolean;
  readonly host: string;
  readonly port: number;
}

/**
 * Reads `host`, `host:port`, `https://host:port` or `http://host:port`. Without a scheme it is https. Null when it is something else.
 */
export function parseEndpoint(text: string): Endpoint | null {
  const [, scheme = 'https', place = ''] = /^(?:(https?):\/\/)?([^/]+)\/?$/.exec(text.trim().toLowerCase()) ?? [];
  if (!isHost(place)) return null;
  const secure = scheme === 'https';
  const [host = '', port] = place.split(':');
  return Object.freeze({ secure, host, port: port === undefined ? (secure ? 443 : 80) : Number(port) });
}

/** Null when the URL is no http or https, has a login in it, or a host that is neither a name nor an IPv4 address. */
export function endpointOf({ protocol, hostname, port, username, password }: URL): Endpoint | null {
  const secure = protocol === 'https:';
  if ((!secure && protocol !== 'http:') || username !== '' || password !== '' || !isHost(hostname)) return null;
  return Object.freeze({ secure, host: hostname, port: port === '' ? (secure ? 443 : 80) : Number(port) });
}

export function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a.secure === b.secure && a.host === b.host && a.port === b.port;
}

/** As people write it. */
export function formatEndpoint({ secure, host, port }: Endpoint): string {
  return port === (secure ? 443 : 80) ? host : `${host}:${port}`;
}

export function urlOf({ secure, host, port }: Endpoint, path: string): URL {
  return new URL(path, `${secure ? 'https' : 'http'}://${host}:${port}`);
}
