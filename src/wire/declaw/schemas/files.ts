import { Type } from 'typebox';
import { UserName } from './common.ts';

/** A path inside the sandbox: absolute, or from the user's home. */
export const FilePath = Type.String({ minLength: 1, maxLength: 4096, pattern: '^[^\\u0000]*$' });

export const PathQuery = Type.Object({ path: FilePath, username: UserName });

export const ListQuery = Type.Object({ path: FilePath, username: UserName, depth: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })) });

export const WriteBody = Type.Object({ path: FilePath, data: Type.String(), username: UserName });

export const BatchBody = Type.Object({
  files: Type.Array(Type.Object({ path: FilePath, data: Type.String(), username: UserName }), { maxItems: 10_000 }),
  username: UserName,
});

export const RenameBody = Type.Object({ old_path: FilePath, new_path: FilePath, username: UserName });

export const PathBody = Type.Object({ path: FilePath, username: UserName });

export const WatchBody = Type.Object({ path: FilePath, username: UserName, recursive: Type.Optional(Type.Boolean()) });
