import type * as x509 from '@peculiar/x509';
import { createPrivateKey, webcrypto, X509Certificate } from 'node:crypto';
import { createSecureContext, type SecureContext } from 'node:tls';
import { parseIpv4 } from '../../core/network/addresses.ts';
import type { SandboxAuthority } from '../../core/network/inspection.ts';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const hourMs = 3_600_000;
const lifetimeMs = 24 * hourMs;
/** The clock of a guest that was paused may be behind. */
const backdatedMs = hourMs;
const mostKept = 256;

/** For all sandboxes: whoever has it can be nobody, since a certificate is a sandbox's own. Never leaves this process. */
let leafKeys: Promise<{ readonly keys: webcrypto.CryptoKeyPair; readonly pem: string }> | null = null;

let loading: Promise<typeof x509> | null = null;

/** Takes a tenth of a second, which a process that opens nothing never needs. */
async function load(): Promise<typeof x509> {
  await import('reflect-metadata'); // the library asks its users for it
  return import('@peculiar/x509');
}

/** Certificates for the hosts that a sandbox connects to, signed by its own authority. Made once per host and day, in about a millisecond. */
export class LeafCertificates {
  readonly #authority: SandboxAuthority;
  readonly #signingKey: Promise<webcrypto.CryptoKey>;
  /** In the order of use. */
  readonly #made = new Map<string, { readonly until: number; readonly context: Promise<SecureContext> }>();

  /** @throws Error when the authority is none. */
  constructor(authority: SandboxAuthority) {
    this.#authority = authority;
    let pkcs8: Buffer | null = null;
    try {
      const key = createPrivateKey(authority.privateKey);
      if (new X509Certificate(authority.certificate).checkPrivateKey(key)) pkcs8 = key.export({ type: 'pkcs8', format: 'der' });
    } catch {
      // What the library says may hold a piece of the key.
    }
    if (pkcs8 === null) throw new Error("The entry's authority is not a certificate and its key, as PEM.");
    this.#signingKey = webcrypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']);
    this.#signingKey.catch(() => {});
    loading ??= load();
    loading.catch(() => {});
  }

  isOf({ certificate, privateKey }: SandboxAuthority): boolean {
    return certificate === this.#authority.certificate && privateKey === this.#authority.privateKey;
  }

  /** @param host Canonical name, or an IPv4 address as text. */
  contextFor(host: string): Promise<SecureContext> {
    const now = Date.now();
    const known = this.#made.get(host);
    this.#made.delete(host);
    const made = known !== undefined && known.until > now ? known : { until: now + lifetimeMs - 2 * hourMs, context: this.#make(host) };
    this.#made.set(host, made);
    made.context.catch(() => this.#made.delete(host));
    if (this.#made.size > mostKept) this.#made.delete(this.#made.keys().next().value!);
    return made.context;
  }

  async #make(host: string): Promise<SecureContext> {
    const { keys, pem } = await (leafKeys ??= makeKeys());
    const library = await (loading ??= load());
    const { AuthorityKeyIdentifierExtension, BasicConstraintsExtension, ExtendedKeyUsage, ExtendedKeyUsageExtension, KeyUsageFlags, KeyUsagesExtension, SubjectAlternativeNameExtension, SubjectKeyIdentifierExtension } = library;
    const issuer = new library.X509Certificate(this.#authority.certificate);
    const certificate = await library.X509CertificateGenerator.create({
      // A common name has at most 64 characters, and nobody reads it.
      subject: [{ CN: [host.slice(0, 64)] }],
      issuer: issuer.subject,
      publicKey: keys.publicKey,
      signingKey: await this.#signingKey,
      signingAlgorithm: algorithm,
      notBefore: new Date(Date.now() - backdatedMs),
      notAfter: new Date(Date.now() + lifetimeMs),
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
        await AuthorityKeyIdentifierExtension.create(issuer.publicKey), // strict clients ask for both
        await SubjectKeyIdentifierExtension.create(keys.publicKey),
        new SubjectAlternativeNameExtension([parseIpv4(host) === null ? { type: 'dns', value: host } : { type: 'ip', value: host }]),
      ],
    });
    return createSecureContext({ key: pem, cert: certificate.toString('pem'), minVersion: 'TLSv1.2' });
  }
}

async function makeKeys(): Promise<{ keys: webcrypto.CryptoKeyPair; pem: string }> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
  return { keys, pem: createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).export({ type: 'pkcs8', format: 'pem' }).toString() };
}
