import { Type, type Static } from 'typebox';
import { StringMap } from './common.ts';

export const TemplateParams = Type.Object({ templateId: Type.String() });
export const BuildParams = Type.Object({ buildId: Type.String() });

const Size = Type.Optional(Type.Integer({ minimum: 1 }));

/** What newer clients send below `template`, older ones at the top. */
const fields = {
  base_image: Type.Optional(Type.String()),
  run_cmds: Type.Optional(Type.Array(Type.String())),
  envs: Type.Optional(StringMap),
  packages: Type.Optional(Type.Array(Type.String())),
  apt_packages: Type.Optional(Type.Array(Type.String())),
  start_cmd: Type.Optional(Type.String()),
  /** Not in the contract: what a start command is waited for with. */
  ready_cmd: Type.Optional(Type.String()),
  copies: Type.Optional(Type.Array(Type.Unknown())),
  dockerfile: Type.Optional(Type.String()),
};

/** `POST /templates/build` (contract, section 2.11). */
export const BuildBody = Type.Object({
  ...fields,
  alias: Type.Optional(Type.String()),
  cpu_count: Size,
  memory_mb: Size,
  disk_mb: Size,
  background: Type.Optional(Type.Boolean()),
  template: Type.Optional(Type.Object(fields)),
});
export type BuildBodyType = Static<typeof BuildBody>;
