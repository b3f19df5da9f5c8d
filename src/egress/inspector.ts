import type { Inspection, InspectionEvent } from '../core/network/inspection.ts';
import type { SandboxId } from '../core/ids.ts';
import type { EventQueue } from './event-queue.ts';
import type { Exchanged } from './http/exchange.ts';
import { findingsOf, GuestGuardrails } from './pipeline/guardrails.ts';
import { GuestSecrets } from './pipeline/guest-secrets.ts';
import { PiiStage } from './pipeline/pii.ts';
import { SecretsStage } from './pipeline/secrets.ts';
import type { Stages } from './pipeline/stage.ts';
import type { TokenTable } from './scanners/pii/tokens.ts';
import { LeafCertificates } from './tls/leaf-certificates.ts';

/** Ports on which TLS mostly carries HTTP. */
const webPorts = new Set([443, 8443]);

/** What is looked for in one sandbox's traffic, from one entry to the next. */
export class Inspector {
  readonly certificates: LeafCertificates;
  readonly #secrets: GuestSecrets;
  readonly #guardrails: GuestGuardrails | null;

  /**
   * @param before what was in force until now.
   * @param tokens of the sandbox, for what must not leave it.
   * @throws Error for an inspection that must not be put in force.
   */
  constructor({ authority, secrets, guardrails, unscanned }: Inspection, before: Inspector | null, tokens: TokenTable) {
    if (authority === null) throw new Error('The authority of the sandbox cannot be read, so its guardrails cannot be enforced.');
    this.#secrets = new GuestSecrets(secrets);
    this.#guardrails = guardrails === null ? null : new GuestGuardrails(guardrails, unscanned, tokens, new Set(secrets.map(({ standIn }) => standIn)));
    this.certificates = before !== null && before.certificates.isOf(authority) ? before.certificates : new LeafCertificates(authority);
  }

  /**
   * Whether TLS to this host has to be opened: where a secret may be put in or a guardrail looks, and, so that a stand-in that goes astray is
   * noticed, wherever the web is.
   */
  opens(host: string | null, port: number): boolean {
    if ((this.#secrets.hasStandIns || this.#guardrails?.everywhere === true) && webPorts.has(port)) return true;
    return this.#secrets.concerns(host) || (host !== null && this.#guardrails?.everywhere !== true && this.#guardrails?.concerns(host) === true);
  }

  /** New ones for each exchange. Real values of secrets come in behind everything that looks, and are gone before it looks again. */
  stages(host: string): Stages {
    const { outbound, inbound } = this.#guardrails?.stages(host) ?? { outbound: [], inbound: [] };
    const secrets = this.#secrets.bindings.length === 0 ? [] : [new SecretsStage(this.#secrets)];
    return { outbound: [...outbound, ...secrets], inbound: [...secrets, ...inbound] };
  }
}

/** Writes down what was done about a request, without anything secret. */
export function recordInspection(queue: EventQueue<InspectionEvent>, sandboxId: SandboxId, event: Exchanged, stages: Stages): void {
  const personal = stages.outbound.find((stage) => stage instanceof PiiStage);
  const path = (personal?.loggable(event.path) ?? event.path).split('?', 1)[0]!;
  const secrets = stages.outbound.find((stage) => stage instanceof SecretsStage);
  queue.record({ ...event, sandboxId, path: secrets?.loggable(path) ?? path.slice(0, 512), secrets: secrets?.uses ?? [], guardrails: findingsOf(stages) });
}
