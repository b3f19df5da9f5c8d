import type { GuardrailFinding, Unscanned } from '../guardrails/finding.ts';
import type { Guardrails } from '../guardrails/guardrails.ts';
import type { SandboxId } from '../ids.ts';

/** What the proxy needs to look into the traffic of a sandbox. Without it bytes are passed on unread. */
export interface Inspection {
  /** Null when it cannot be read: then nothing of the sandbox leaves. */
  readonly authority: SandboxAuthority | null;
  readonly secrets: readonly SecretBinding[];
  /** Null when nothing but secrets is looked for. */
  readonly guardrails: Guardrails | null;
  readonly unscanned: Unscanned;
}

/**
 * The certificate authority that a sandbox trusts for intercepted connections. Forks keep their source's, because their running programs have
 * loaded it. The key never enters a guest.
 */
export interface SandboxAuthority {
  /** PEM, ECDSA P-256, CA:TRUE with path length 0. */
  readonly certificate: string;
  /** PEM, PKCS #8. */
  readonly privateKey: string;
}

/** A secret as one sandbox may use it. */
export interface SecretBinding {
  /** UUID, for events. */
  readonly id: string;
  readonly secretName: string;
  /** The text that the guest has in the secret's place. */
  readonly standIn: string;
  /** Never logged. Null when the secret is gone or was taken away: the stand-in is then refused. */
  readonly value: string | null;
  /** The first one that matches a request's host applies. A stand-in sent to a host that none matches is refused. */
  readonly rules: readonly SecretRule[];
}

/** Where a secret may be put in. Only on https, unless its host is reached without for a test of the owner's. */
export interface SecretRule {
  readonly hosts: readonly SecretHost[];
  readonly place: SecretPlace;
  /** `stand-in`: where the guest has put its stand-in, and nowhere else. `always`: in every request to these hosts, whatever the guest has put there. */
  readonly when: 'stand-in' | 'always';
  /** Upper case; empty means every method. */
  readonly methods: readonly string[];
  /** Prefixes of the canonical path, each beginning with `/`; empty means every path. */
  readonly paths: readonly string[];
  /** Set besides, as they are. */
  readonly extraHeaders: Readonly<Record<string, string>>;
  readonly extraQuery: Readonly<Record<string, string>>;
}

/** `one-level` is written `*.example.com` and matches `a.example.com`, not `a.b.example.com`. A regular expression matches the whole name. */
export type SecretHost =
  | { readonly kind: 'name'; readonly text: string; readonly name: string }
  | { readonly kind: 'one-level'; readonly text: string; readonly suffix: string }
  | { readonly kind: 'regex'; readonly text: string; readonly pattern: string };

/** In `headers` each value holds `{{ value }}` once or more. */
export type SecretPlace =
  | { readonly kind: 'bearer' }
  | { readonly kind: 'basic'; readonly username: string | null }
  | { readonly kind: 'header'; readonly name: string; readonly prefix: string }
  | { readonly kind: 'headers'; readonly headers: Readonly<Record<string, string>> }
  | { readonly kind: 'query'; readonly name: string };

/** What was done about a secret in one request. `unused`: the stand-in was seen where it is not replaced. */
export interface SecretUse {
  readonly bindingId: string;
  readonly outcome: 'injected' | 'refused' | 'unused';
  /** `credential_host_mismatch`, `credential_revoked`, `credential_misplaced`, `plain_http` …; null when injected. */
  readonly code: string | null;
  /** The real value was taken out of the answer so many times. */
  readonly removedFromResponse: number;
}

/** One inspected request. Never holds a body, a query or a header's value. */
export interface InspectionEvent {
  readonly sandboxId: SandboxId;
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly method: string;
  readonly host: string;
  readonly port: number;
  /** Without query, at most 512 characters, stand-ins and secrets taken out. */
  readonly path: string;
  /** What the guest was answered; null when it left before. */
  readonly status: number | null;
  /** What the server beyond answered; null when it was not asked. */
  readonly upstreamStatus: number | null;
  readonly durationMs: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly verdict: 'allowed' | 'blocked' | 'failed';
  /** Stable name of why it was blocked or failed: `host_mismatch`, `upstream_certificate`, `ambiguous_request` …; null when allowed. */
  readonly errorCode: string | null;
  readonly reason: string;
  readonly secrets: readonly SecretUse[];
  /** Guardrails that found something, or could not look. */
  readonly guardrails: readonly GuardrailFinding[];
}
