import { Type } from 'typebox';
import { Scope } from '../scopes.ts';

export const TeamParams = Type.Object({ teamId: Type.String() });
export const SecretParams = Type.Object({ teamId: Type.String(), secretId: Type.String() });

export const NameBody = Type.Object({ name: Type.String() });
export const NewSecretBody = Type.Object({
  environment: Type.Optional(Type.String()),
  value: Type.String(),
  name: Type.Optional(Type.String()),
  provider: Type.Optional(Type.String()),
  scopes: Type.Optional(Type.Array(Scope, { maxItems: 16 })),
  rotation_interval_days: Type.Optional(Type.Integer({ minimum: 0 })),
});
export const ValueBody = Type.Object({ value: Type.String() });
export const ScopesBody = Type.Object({ scopes: Type.Array(Scope, { minItems: 1, maxItems: 16 }) });
export const UsesQuery = Type.Object({ limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })), before: Type.Optional(Type.Integer({ minimum: 1 })) });
export const CheckBody = Type.Object({ env: Type.String(), url: Type.String({ maxLength: 4096 }), method: Type.Optional(Type.String()) });
