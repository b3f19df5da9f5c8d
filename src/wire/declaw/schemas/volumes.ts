import { Type } from 'typebox';

export const VolumeParams = Type.Object({ volumeId: Type.String() });

export const VolumeListQuery = Type.Object({ limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })), next_token: Type.Optional(Type.String({ maxLength: 128 })) });
export const VolumeDeleteQuery = Type.Object({ force: Type.Optional(Type.Enum(['true', 'false', '1', '0', ''])) });

const Name = Type.String({ minLength: 1, maxLength: 128 });
export const NameQuery = Type.Object({ name: Name });
export const CommitParams = Type.Object({ id: Type.String(), volumeId: Type.String() });
export const CommitQuery = Type.Object({ name: Type.Optional(Name) });
export const CaptureQuery = Type.Object({ path: Type.String({ minLength: 1, maxLength: 4096 }), name: Type.Optional(Name) });

/** A path inside a volume, with or without a slash in front. */
const VolumePath = Type.String({ minLength: 1, maxLength: 4096 });
export const VolumePathQuery = Type.Object({ path: VolumePath });
export const VolumeWriteQuery = Type.Object({ path: VolumePath, if_version: Type.Optional(Type.String({ maxLength: 256 })) });
export const VolumeRemoveQuery = Type.Object({ path: VolumePath, recursive: Type.Optional(Type.Enum(['true', 'false', '1', '0', ''])) });
export const VolumeRenameBody = Type.Object({ old_path: VolumePath, new_path: VolumePath });
export const VolumePathBody = Type.Object({ path: VolumePath });

const Token = Type.String({ minLength: 1, maxLength: 256 });
const LockSeconds = Type.Optional(Type.Integer());
export const LockBody = Type.Object({ path: VolumePath, ttl_seconds: LockSeconds });
export const RenewBody = Type.Object({ path: VolumePath, token: Token, ttl_seconds: LockSeconds });
export const ReleaseBody = Type.Object({ path: VolumePath, token: Token });
