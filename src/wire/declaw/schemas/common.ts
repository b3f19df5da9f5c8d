import { Type } from 'typebox';

/** Shapes that several endpoints share. Unknown keys are tolerated everywhere: clients of other versions send them. */
export const SandboxParams = Type.Object({ id: Type.String() });

export const ProcessParams = Type.Object({ id: Type.String(), pid: Type.String() });

export const AsyncQuery = Type.Object({ async: Type.Optional(Type.String()) });

export const StringMap = Type.Record(Type.String(), Type.String());

/** A user inside the sandbox; absent or empty means the sandbox's default user. */
export const UserName = Type.Optional(Type.String({ maxLength: 256 }));

/** Seconds; 0 means no limit. Ten years is where a number stops being meant. */
export const Seconds = Type.Number({ minimum: 0, maximum: 315_360_000 });

export const WholeSeconds = Type.Integer({ minimum: 0, maximum: 315_360_000 });
