// The certificate library needs it, and asks that its users load it.
// oxlint-disable-next-line import/no-unassigned-import
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AuthorityKeyIdentifierExtension, BasicConstraintsExtension, ExtendedKeyUsage, ExtendedKeyUsageExtension, KeyUsageFlags, KeyUsagesExtension, PemConverter, SubjectAlternativeNameExtension, SubjectKeyIdentifierExtension, X509Certificate, X509CertificateGenerator } from '@peculiar/x509';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const dayMs = 86_400_000;
/** Clients refuse a certificate whose time has not come by their clock. */
const backdatedMs = dayMs;
const authorityDays = 3650;
/** Some clients take no longer ones. */
const leafDays = 397;
const renewBeforeMs = 30 * dayMs;

/** The certificates of a gateway, as PEM. */
export interface Certificates {
  /** File that clients are told to trust. */
  readonly authorityFile: string;
  readonly certificate: string;
  readonly key: string;
}

/**
 * An authority of this gateway's own, made once, and a certificate for these names, made anew when it runs out or the names change. The
 * keys are readable by their owner only.
 */
export async function ensureCertificates(directory: string, names: readonly string[]): Promise<Certificates> {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const files = { ca: join(directory, 'ca.pem'), caKey: join(directory, 'ca.key'), leaf: join(directory, 'leaf.pem'), leafKey: join(directory, 'leaf.key') };
  if (!existsSync(files.ca) || !existsSync(files.caKey) || expiresSoon(readFileSync(files.ca, 'utf8'))) await makeAuthority(files);
  const authority = readFileSync(files.ca, 'utf8');
  if (!existsSync(files.leaf) || !existsSync(files.leafKey) || !fits(readFileSync(files.leaf, 'utf8'), authority, names)) await makeLeaf(files, names);
  return { authorityFile: files.ca, certificate: readFileSync(files.leaf, 'utf8'), key: readFileSync(files.leafKey, 'utf8') };
}

type Files = Readonly<Record<'ca' | 'caKey' | 'leaf' | 'leafKey', string>>;

async function makeAuthority(files: Files): Promise<void> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const name = 'CN=Paddock gateway on this machine';
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name,
    keys,
    signingAlgorithm: algorithm,
    ...validity(authorityDays),
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  await keep(files.caKey, keys.privateKey);
  write(files.ca, `${certificate.toString('pem')}\n`, 0o644);
}

async function makeLeaf(files: Files, names: readonly string[]): Promise<void> {
  const authority = new X509Certificate(readFileSync(files.ca, 'utf8'));
  const signingKey = await webcrypto.subtle.importKey('pkcs8', PemConverter.decodeFirst(readFileSync(files.caKey, 'utf8')), algorithm, false, ['sign']);
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.create({
    subject: 'CN=Paddock gateway',
    issuer: authority.subject,
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: algorithm,
    ...validity(leafDays),
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      await AuthorityKeyIdentifierExtension.create(authority.publicKey), // strict clients ask for both
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
      new SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns', value }))),
    ],
  });
  await keep(files.leafKey, keys.privateKey);
  write(files.leaf, `${certificate.toString('pem')}\n`, 0o644);
}

function validity(days: number): { readonly notBefore: Date; readonly notAfter: Date } {
  return { notBefore: new Date(Date.now() - backdatedMs), notAfter: new Date(Date.now() + days * dayMs) };
}

async function keep(file: string, key: webcrypto.CryptoKey): Promise<void> {
  write(file, `${PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`, 0o600);
}

/** Whole or not at all. */
function write(file: string, text: string, mode: number): void {
  const beside = `${file}.${process.pid}.tmp`;
  writeFileSync(beside, text, { mode });
  chmodSync(beside, mode);
  renameSync(beside, file);
}

function expiresSoon(pem: string): boolean {
  return new X509Certificate(pem).notAfter.getTime() < Date.now() + renewBeforeMs;
}

function fits(pem: string, authority: string, names: readonly string[]): boolean {
  const leaf = new X509Certificate(pem);
  const said = leaf.getExtension(SubjectAlternativeNameExtension)?.names.toJSON().map(({ value }) => value) ?? [];
  return !expiresSoon(pem) && leaf.issuer === new X509Certificate(authority).subject && names.every((name) => said.includes(name));
}
