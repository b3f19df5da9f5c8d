import { Type } from 'typebox';
import { Seconds, StringMap, UserName } from './common.ts';

const Cmd = Type.String({ minLength: 1 });
const Directory = Type.Optional(Type.String({ maxLength: 4096 }));
const Envs = Type.Optional(StringMap);

/** `POST …/commands` and `…/commands/stream` (contract, section 2.3). */
export const CommandBody = Type.Object({
  cmd: Cmd,
  background: Type.Optional(Type.Boolean()),
  user: UserName,
  timeout: Type.Optional(Seconds),
  envs: Envs,
  cwd: Directory,
  stdin: Type.Optional(Type.Boolean()),
});

/** Input as plain UTF-8 text. */
export const TextInputBody = Type.Object({ data: Type.String() });

/** Input as standard base64. */
export const Base64InputBody = Type.Object({ data: Type.String() });

/** `POST …/stdio` (contract, section 2.4). */
export const StdioBody = Type.Object({ cmd: Cmd, user: UserName, envs: Envs, cwd: Directory });

export const StdioParams = Type.Object({ id: Type.String(), cmdId: Type.String() });

export const StdioStreamQuery = Type.Object({ last_entry_id: Type.Optional(Type.Integer({ minimum: 0 })) });

const TerminalSize = Type.Object({ cols: Type.Integer({ minimum: 1, maximum: 65535 }), rows: Type.Integer({ minimum: 1, maximum: 65535 }) });

/** `POST …/pty` (contract, section 2.5). */
export const PtyBody = Type.Object({
  size: Type.Optional(TerminalSize),
  user: UserName,
  timeout: Type.Optional(Seconds),
  cwd: Directory,
  envs: Envs,
});

export const ResizeBody = Type.Object({ size: TerminalSize });
