import type { GuardrailFinding, Unscanned } from '../../core/guardrails/finding.ts';
import type { GuardedHosts, Guardrails } from '../../core/guardrails/guardrails.ts';
import { parseTransformations } from '../../core/guardrails/transformations.ts';
import { matchesName } from '../../core/network/decide.ts';
import { effectiveThreshold } from '../scanners/injection/thresholds.ts';
import type { TokenTable } from '../scanners/pii/tokens.ts';
import { Guard } from './guard.ts';
import { HiddenTextStage } from './hidden-text.ts';
import { codeJudge, injectionJudge, toxicityJudge } from './judges.ts';
import { PiiStage } from './pii.ts';
import { ScoreStage } from './scores.ts';
import type { Stage, Stages } from './stage.ts';
import { TransformationsStage } from './transformations.ts';

/** The guardrails of one sandbox, as its requests meet them. */
export class GuestGuardrails {
  readonly #guardrails: Guardrails;
  readonly #unscanned: Unscanned;
  readonly #table: TokenTable;
  readonly #standIns: ReadonlySet<string>;
  readonly #codeJudge: ReturnType<typeof codeJudge> | null;

  /** @throws Error for rules that cannot be in force. */
  constructor(guardrails: Guardrails, unscanned: Unscanned, table: TokenTable, standIns: ReadonlySet<string>) {
    this.#guardrails = guardrails;
    this.#unscanned = unscanned;
    this.#table = table;
    this.#standIns = standIns;
    this.#codeJudge = guardrails.codeSecurity === null ? null : codeJudge(guardrails.codeSecurity);
    // Each pattern is compiled now: later nobody could answer for it.
    parseTransformations(guardrails.transformations);
    for (const hosts of this.#hosts()) isGuarded(hosts, 'example.com');
  }

  /** Whether something is looked for in what goes to every host. */
  get everywhere(): boolean {
    return this.#hosts().some((hosts) => isEverything(hosts));
  }

  /** Whether something is looked for in what goes to this host. */
  concerns(host: string | null): boolean {
    return this.#hosts().some((hosts) => isGuarded(hosts, host));
  }

  /** For one exchange with a host. What is hidden is found first, so that the others see what it hides; then in the order of the contract. */
  stages(host: string): Stages {
    const { invisibleText, transformations, pii, injection, toxicity, codeSecurity } = this.#guardrails;
    const unscanned = this.#unscanned;
    const hidden = invisibleText !== null && isGuarded(invisibleText.hosts, host) ? [new HiddenTextStage(invisibleText, unscanned)] : [];
    const transforming = transformations.length > 0 ? [new TransformationsStage(transformations, unscanned)] : [];
    const personal = pii !== null && isGuarded(pii.hosts, host) ? [new PiiStage(pii, unscanned, this.#table, host, this.#standIns)] : [];
    const injecting =
      injection !== null && isGuarded(injection.hosts, host) ? [new ScoreStage('injection_defense', injectionJudge, { action: injection.action, threshold: effectiveThreshold(injection), everything: true }, unscanned)] : [];
    const others: Stage[] = [];
    if (toxicity !== null && isGuarded(toxicity.hosts, host)) others.push(new ScoreStage('toxicity', toxicityJudge, { ...toxicity, everything: false }, unscanned));
    if (codeSecurity !== null && this.#codeJudge !== null && isGuarded(codeSecurity.hosts, host)) others.push(new ScoreStage('code_security', this.#codeJudge, { ...codeSecurity, everything: false }, unscanned));
    return { outbound: [...hidden, ...transforming, ...personal, ...injecting, ...others], inbound: [...hidden, ...injecting, ...transforming, ...personal, ...others] };
  }

  #hosts(): GuardedHosts[] {
    const { invisibleText, transformations, pii, injection, toxicity, codeSecurity } = this.#guardrails;
    const rules = [invisibleText, pii, injection, toxicity, codeSecurity].flatMap((each) => (each === null ? [] : [each.hosts]));
    return transformations.length > 0 ? [...rules, []] : rules;
  }
}

/** What the guardrails among these have to tell. */
export function findingsOf({ outbound }: Stages): readonly GuardrailFinding[] {
  return outbound.flatMap((stage) => (stage instanceof Guard ? stage.findings : []));
}

function isEverything(hosts: GuardedHosts): boolean {
  return hosts.length === 0 || hosts.some(({ kind }) => kind === 'all');
}

function isGuarded(hosts: GuardedHosts, host: string | null): boolean {
  return isEverything(hosts) || (host !== null && hosts.some((rule) => matchesName(rule, host)));
}
