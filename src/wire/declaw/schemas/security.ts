import { Type, type Static } from 'typebox';

const Domains = Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 1000 }), { maxItems: 1000 }));
const Enabled = Type.Optional(Type.Boolean());
const Score = Type.Optional(Type.Number({ minimum: 0, maximum: 1 }));

const Pii = Type.Object({
  enabled: Enabled,
  // `phone_number` is an old name of `phone`.
  types: Type.Optional(Type.Array(Type.Enum(['ssn', 'credit_card', 'email', 'phone', 'phone_number', 'person_name', 'api_key', 'address', 'ip_address']))),
  action: Type.Optional(Type.Enum(['redact', 'block', 'log_only'])),
  rehydrate_response: Type.Optional(Type.Boolean()),
  domains: Domains,
});

const InjectionDefense = Type.Object({
  enabled: Enabled,
  sensitivity: Type.Optional(Type.Enum(['low', 'medium', 'high'])),
  // `log` and `sanitize` are other names of `log_only`.
  action: Type.Optional(Type.Enum(['block', 'log_only', 'log', 'sanitize'])),
  threshold: Score,
  domains: Domains,
  injection_mode: Type.Optional(Type.Enum(['strict', 'balanced', 'permissive', 'agentic-tool', 'data-egress-sensitive'])),
  judge: Type.Optional(Type.Object({ enabled: Enabled, always: Type.Optional(Type.Boolean()), policy: Type.Optional(Type.String()) })),
});

const Transformation = Type.Object({
  match: Type.String({ minLength: 1, maxLength: 1000 }),
  replace: Type.String(),
  direction: Type.Optional(Type.Enum(['outbound', 'inbound', 'both', 'out', 'in'])),
});

const Audit = Type.Object({ enabled: Enabled, redact_sensitive_data: Type.Optional(Type.Boolean()) });

const EnvSecurity = Type.Object({
  mask_patterns: Type.Optional(Type.Array(Type.String())),
  auto_mask_in_audit: Type.Optional(Type.Boolean()),
  sensitive_vars: Type.Optional(Type.Array(Type.Object({ name: Type.String(), value: Type.Optional(Type.String()) }))),
});

/** The rules of `network`, at the top level of a create and inside a policy. */
export const Network = Type.Object({
  allow_out: Type.Optional(Type.Array(Type.String())),
  deny_out: Type.Optional(Type.Array(Type.String())),
  allow_public_traffic: Type.Optional(Type.Boolean()),
  mask_request_host: Type.Optional(Type.Union([Type.String(), Type.Boolean()])),
});

/** The security policy (contract, section 2.8), after its envelope has been taken off and nulls removed. */
export const SecurityPolicy = Type.Object({
  pii: Type.Optional(Pii),
  injection_defense: Type.Optional(Type.Union([Type.Boolean(), InjectionDefense])),
  transformations: Type.Optional(Type.Array(Transformation, { maxItems: 1000 })),
  audit: Type.Optional(Type.Union([Type.Boolean(), Audit])),
  env_security: Type.Optional(EnvSecurity),
  network: Type.Optional(Network),
  toxicity: Type.Optional(Type.Object({ enabled: Enabled, threshold: Score, action: Type.Optional(Type.Enum(['block', 'log_only'])), domains: Domains })),
  code_security: Type.Optional(
    Type.Object({
      enabled: Enabled,
      threshold: Score,
      action: Type.Optional(Type.Enum(['block', 'log_only'])),
      excluded_languages: Type.Optional(Type.Array(Type.String())),
      domains: Domains,
      detect_suspicious_imports: Type.Optional(Type.Boolean()),
    }),
  ),
  invisible_text: Type.Optional(
    Type.Object({ enabled: Enabled, action: Type.Optional(Type.Enum(['block', 'strip', 'log_only'])), domains: Domains, detect_zero_width: Type.Optional(Type.Boolean()) }),
  ),
  content_gate: Type.Optional(Type.Object({ enabled: Enabled, domains: Domains })),
  custom_policy: Type.Optional(
    Type.Object({
      enabled: Enabled,
      inline_rego: Type.Optional(Type.String()),
      inline_modules: Type.Optional(Type.Array(Type.String())),
      policy_ref: Type.Optional(Type.String()),
      default_deny: Type.Optional(Type.Boolean()),
    }),
  ),
});

export type SecurityPolicyBody = Static<typeof SecurityPolicy>;
export type NetworkBody = Static<typeof Network>;
