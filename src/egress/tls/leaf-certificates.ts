// The certificate library needs it, and asks that its users load it.
// oxlint-disable-next-line import/no-unassigned-import
import 'reflect-metadata';
import { createPrivateKey, webcrypto } from 'node:crypto';
import { createSecureContext, type SecureContext } from 'node:tls';
import { AuthorityKeyIdentifierExtension, BasicConstraintsExtension, ExtendedKeyUsage, ExtendedKeyUsageExtension, KeyUsageFlags, KeyUsagesExtension, PemConverter, SubjectAlternativeNameExtension, SubjectKeyIdentifierExtension, X509Certificate, X509CertificateGenerator } from '@peculiar/x509';
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

/** Certificates for the hosts that a sandbox connects to, signed by its own authority. Made once per host and day, in about a millisecond. */
export class LeafCertificates {
  readonly #authority: SandboxAuthority;
  readonly #issuer: X509Certificate;
  readonly #signingKey: Promise<webcrypto.CryptoKey>;
  /** In the order of use. */
  readonly #made = new Map<string, { readonly until: number; readonly context: Promise<SecureContext> }>();

  /** @throws Error when the authority is none. */
  constructor(authority: SandboxAuthority) {
    this.#authority = authority;
    try {
      this.#issuer = new X509Certificate(authority.certificate);
      createPrivateKey(authority.privateKey);
    } catch {
      // What the library says may hold a piece of the key.
      throw new Error("The entry's authority is not a certificate and its key, as PEM.");
    }
    this.#signingKey = webcrypto.subtle.importKey('pkcs8', PemConverter.decodeFirst(authority.privateKey), algorithm, false, ['sign']);
    this.#signingKey.catch(() => {});
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
    const certificate = await X509CertificateGenerator.create({
      // A common name has at most 64 characters, and nobody reads it.
      subject: [{ CN: [host.slice(0, 64)] }],
      issuer: this.#issuer.subject,
      publicKey: keys.publicKey,
      signingKey: await this.#signingKey,
      signingAlgorithm: algorithm,
      notBefore: new Date(Date.now() - backdatedMs),
      notAfter: new Date(Date.now() + lifetimeMs),
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
        await AuthorityKeyIdentifierExtension.create(this.#issuer.publicKey), // strict clients ask for both
        await SubjectKeyIdentifierExtension.create(keys.publicKey),
        new SubjectAlternativeNameExtension([parseIpv4(host) === null ? { type: 'dns', value: host } : { type: 'ip', value: host }]),
      ],
    });
    return createSecureContext({ key: pem, cert: certificate.toString('pem'), minVersion: 'TLSv1.2' });
  }
}

async function makeKeys(): Promise<{ keys: webcrypto.CryptoKeyPair; pem: string }> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  return { keys, pem: PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey), 'PRIVATE KEY') };
}
