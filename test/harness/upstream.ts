import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingHttpHeaders } from 'node:http';
import { createServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSecureContext, type SecureContext } from 'node:tls';
import { after } from 'node:test';
import { makeAuthority, makeCertificate } from '../../src/egress/testing/authority.ts';
import type { Internet } from '../../src/egress/testing/internet.ts';
import { serverWithInternet } from './internet.ts';
import { prepare, type TestServer } from './server.ts';

/** A request as it arrived outside. */
export interface Arrived {
  readonly host: string;
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export interface Upstream {
  readonly server: TestServer;
  readonly internet: () => Internet;
  /** Everything that arrived since it was asked last. */
  readonly arrived: () => readonly Arrived[];
}

/**
 * A server whose internet has these names, each with a certificate that the server trusts and no sandbox does. They answer every request with
 * what arrived, as JSON.
 */
export async function serverWithUpstream(names: readonly string[], settings: Readonly<Record<string, string>> = {}): Promise<Upstream> {
  const dir = mkdtempSync(join(tmpdir(), 'paddock-upstream-'));
  const authority = await makeAuthority('Internet of a test');
  const caFile = join(dir, 'ca.pem');
  writeFileSync(caFile, authority.certificate);
  const contexts = new Map<string, SecureContext>();
  for (const name of names) contexts.set(name, createSecureContext(await makeCertificate(authority, name)));
  const { server, internet } = serverWithInternet({ PADDOCK_EXTRA_CA_FILE: caFile, ...settings });
  after(() => rmSync(dir, { recursive: true })); // behind the server's, whose settings name it
  let arrived: Arrived[] = [];
  prepare(async () => {
    const net = internet();
    for (const name of names) net.name(name, net.host(10));
    const upstream = createServer({ ...(await makeCertificate(authority, names[0]!)), SNICallback: (name, done) => done(null, contexts.get(name)) }, (request, response) => {
      const { host = '' } = request.headers;
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const seen: Arrived = { host, method: request.method ?? '', url: request.url ?? '', headers: request.headers, body: Buffer.concat(chunks).toString() };
        arrived.push(seen);
        response.setHeader('content-type', 'application/json');
        response.end(JSON.stringify(seen));
      });
    });
    upstream.on('tlsClientError', () => {});
    net.keep(upstream);
    await new Promise<void>((resolve) => upstream.listen(net.listen(443), resolve));
  });
  return {
    server,
    internet,
    arrived: () => {
      const all = arrived;
      arrived = [];
      return all;
    },
  };
}
