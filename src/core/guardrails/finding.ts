export type GuardrailName = 'invisible_text' | 'transformations' | 'pii' | 'injection_defense' | 'toxicity' | 'code_security';

/** What one guardrail did about one request or its answer. Says how much of what was found, never what. */
export interface GuardrailFinding {
  readonly guardrail: GuardrailName;
  /** `outbound`: the request. */
  readonly direction: 'outbound' | 'inbound';
  /** `found`: it passed all the same; `not_scanned`: it could not be looked into, and passed or was refused as `blocked` says. */
  readonly outcome: 'found' | 'changed' | 'blocked' | 'not_scanned';
  readonly blocked: boolean;
  /** How often something was found or changed, by kind. */
  readonly counts: Readonly<Record<string, number>>;
  /** 0 to 1, of guardrails that judge; else null. */
  readonly score: number | null;
  /** Why it was not scanned; else null. */
  readonly reason: string | null;
}

/** What happens to what a guardrail cannot look into though it is to change or block: too large, packed in an unknown way, a scanner that fails. */
export type Unscanned = 'refuse' | 'pass';
