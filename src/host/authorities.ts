// The certificate library needs it, and asks that its users load it.
// oxlint-disable-next-line import/no-unassigned-import
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { BasicConstraintsExtension, KeyUsageFlags, KeyUsagesExtension, PemConverter, SubjectKeyIdentifierExtension, X509CertificateGenerator } from '@peculiar/x509';
import type { SandboxAuthority } from '../core/network/inspection.ts';
import type { CertificateMaker } from '../core/secrets/authorities.ts';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const dayMs = 86_400_000;
/** Clients refuse a certificate whose time has not come by their clock. */
const backdatedMs = dayMs;
const days = 3650;

/** The same for every sandbox: guests find it by the hash of this name (agent/trust.go), and keys tell authorities apart. */
export const authorityName = 'CN=Paddock sandbox authority,O=Paddock';

/** Makes authorities with Node's own cryptography, which works beside the event loop. */
export const certificateMaker: CertificateMaker = {
  async authority(): Promise<SandboxAuthority> {
    const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const certificate = await X509CertificateGenerator.createSelfSigned({
      name: authorityName,
      keys,
      signingAlgorithm: algorithm,
      notBefore: new Date(Date.now() - backdatedMs),
      notAfter: new Date(Date.now() + days * dayMs),
      extensions: [
        new BasicConstraintsExtension(true, 0, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
        await SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    });
    return { certificate: `${certificate.toString('pem')}\n`, privateKey: `${PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey), 'PRIVATE KEY')}\n` };
  },
};
