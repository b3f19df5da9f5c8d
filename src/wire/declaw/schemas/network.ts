import { Type } from 'typebox';
import { Network } from './security.ts';

const Rules = Type.Optional(Type.Array(Type.String()));
/** A URL, host, host:port or address. */
const Target = Type.String({ minLength: 1, maxLength: 2000 });

/** `PUT /sandboxes/{id}/network`: what is left out is no rule of that kind. */
export const ReplaceBody = Type.Object({ allow_out: Rules, deny_out: Rules });

export const ExplainBody = Type.Object({ network: Type.Optional(Network), target: Target });

export const ExplainQuery = Type.Object({ target: Target });

/** Texts: their values are checked where they are read, with sentences of their own. */
export const NetworkLogQuery = Type.Object({
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
  before: Type.Optional(Type.String()),
  since: Type.Optional(Type.String()),
  verdict: Type.Optional(Type.Enum(['allowed', 'blocked', 'failed'])),
});

export const AuditQuery = Type.Object({ limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })) });
