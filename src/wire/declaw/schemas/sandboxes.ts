import { Type, type Static } from 'typebox';
import { StringMap, WholeSeconds } from './common.ts';
import { Network } from './security.ts';

/** `POST /sandboxes` (contract, section 2.1). */
export const CreateBody = Type.Object({
  template: Type.Optional(Type.String({ maxLength: 128 })),
  timeout: Type.Optional(WholeSeconds),
  secure: Type.Optional(Type.Boolean()),
  metadata: Type.Optional(StringMap),
  envs: Type.Optional(StringMap),
  vault_refs: Type.Optional(StringMap),
  network: Type.Optional(Network),
  // Either envelope; what is inside is checked by itself, because it may be JSON text.
  security: Type.Optional(Type.Object({ policy_json: Type.Optional(Type.String()) })),
  lifecycle: Type.Optional(
    Type.Object({
      on_timeout: Type.Optional(Type.Enum(['kill', 'pause'])),
      auto_resume: Type.Optional(Type.Boolean()),
      max_lifetime_seconds: Type.Optional(WholeSeconds),
      auto_delete_seconds: Type.Optional(WholeSeconds),
    }),
  ),
  snapshot_id: Type.Optional(Type.String({ maxLength: 128 })),
  volumes: Type.Optional(
    Type.Array(
      Type.Object({
        volume_id: Type.String({ minLength: 1, maxLength: 128 }),
        mount_path: Type.String({ pattern: '^/', maxLength: 4096 }),
        mode: Type.Optional(Type.Enum(['copy', 'mount', 'mount-ro'])),
        subpath: Type.Optional(Type.String({ maxLength: 4096 })),
      }),
      { maxItems: 64 },
    ),
  ),
  resources: Type.Optional(Type.Unknown()),
});
export type CreateBodyType = Static<typeof CreateBody>;

/** `POST /sandboxes/{id}/fork`, an extension. Rules are not among it: a fork has its source's. */
export const ForkBody = Type.Object({
  count: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
  timeout: Type.Optional(WholeSeconds),
  metadata: Type.Optional(StringMap),
  envs: Type.Optional(StringMap),
  lifecycle: CreateBody.properties.lifecycle,
  network: Type.Optional(Type.Unknown()),
  security: Type.Optional(Type.Unknown()),
});

export const TimeoutBody = Type.Object({ timeout: WholeSeconds });

export const KillManyBody = Type.Object({ sandbox_ids: Type.Array(Type.String({ maxLength: 128 }), { maxItems: 1000 }) });
