import type { Inspection, InspectionEvent } from '../core/network/inspection.ts';
import type { SandboxId } from '../core/ids.ts';
import type { EventQueue } from './event-queue.ts';
import { GuestSecrets } from './pipeline/guest-secrets.ts';
import { SecretsStage } from './pipeline/secrets.ts';
import type { Stage } from './pipeline/stage.ts';
import { LeafCertificates } from './tls/leaf-certificates.ts';

/** Ports on which TLS mostly carries HTTP. */
const webPorts = new Set([443, 8443]);

/** What is looked for in one sandbox's traffic, from one entry to the next. */
export class Inspector {
  readonly certificates: LeafCertificates;
  readonly #secrets: GuestSecrets;

  /** @param before what was in force until now. @throws Error for an inspection that must not be put in force. */
  constructor({ authority, secrets }: Inspection, before: Inspector | null) {
    this.#secrets = new GuestSecrets(secrets);
    this.certificates = before !== null && before.certificates.isOf(authority) ? before.certificates : new LeafCertificates(authority);
  }

  /**
   * Whether TLS to this host has to be opened: where a secret may be put in, and, so that a stand-in that goes astray is noticed, wherever
   * the web is.
   */
  opens(host: string | null, port: number): boolean {
    return (this.#secrets.hasStandIns && webPorts.has(port)) || this.#secrets.concerns(host);
  }

  /** New ones for each exchange. */
  stages(): readonly Stage[] {
    return this.#secrets.bindings.length === 0 ? [] : [new SecretsStage(this.#secrets)];
  }
}

/** Writes down what was done about a request, without anything secret. */
export function recordInspection(queue: EventQueue<InspectionEvent>, sandboxId: SandboxId, event: Omit<InspectionEvent, 'sandboxId' | 'secrets'>, stages: readonly Stage[]): void {
  const secrets = stages.find((stage) => stage instanceof SecretsStage);
  queue.record({ ...event, sandboxId, path: secrets?.loggable(event.path) ?? event.path.split('?', 1)[0]!.slice(0, 512), secrets: secrets?.uses ?? [] });
}
