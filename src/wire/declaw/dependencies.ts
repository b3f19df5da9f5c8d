import type { FastifyInstance, FastifyBaseLogger, RawReplyDefaultExpression, RawRequestDefaultExpression, RawServerDefault } from 'fastify';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { Access } from '../../core/access.ts';
import type { Clock } from '../../core/clock.ts';
import type { Files } from '../../core/files.ts';
import type { Idempotency } from '../../core/idempotency.ts';
import type { Networks } from '../../core/networks.ts';
import type { Ports } from '../../core/ports.ts';
import type { Processes } from '../../core/processes.ts';
import type { Sandboxes } from '../../core/sandboxes.ts';
import type { SecretAttachments } from '../../core/secrets/attachments.ts';
import type { Secrets } from '../../core/secrets/secrets.ts';
import type { TemplateCatalog } from '../../core/template.ts';
import type { Templates } from '../../core/templates/templates.ts';
import type { Tokens } from '../../core/tokens.ts';
import type { VolumeCaptures } from '../../core/volume-captures.ts';
import type { VolumeFiles } from '../../core/volume-files.ts';
import type { VolumeLocks } from '../../core/volume-locks.ts';
import type { Volumes } from '../../core/volumes.ts';
import type { Stopping } from '../stopping.ts';
import type { Cursors } from './cursor.ts';
import type { Presenter } from './present.ts';

/** What this wire needs of the rest of the server. */
export interface DeclawDependencies {
  readonly access: Access;
  readonly sandboxes: Sandboxes;
  readonly processes: Processes;
  readonly files: Files;
  readonly networks: Networks;
  readonly ports: Ports;
  readonly volumes: Volumes;
  readonly volumeFiles: VolumeFiles;
  readonly volumeLocks: VolumeLocks;
  readonly volumeCaptures: VolumeCaptures;
  readonly secrets: Secrets;
  readonly secretAttachments: SecretAttachments;
  /** The built-in ones. */
  readonly templates: TemplateCatalog;
  readonly ownTemplates: Templates;
  readonly tokens: Tokens;
  readonly idempotency: Idempotency;
  readonly clock: Clock;
  /** Shown as `sandbox_domain`; ports are at `<port>-<id>.<domain>`. */
  readonly domain: string;
  /** Longest life of a sandbox in seconds; 0 means no limit. */
  readonly maxTimeoutSeconds: number;
  /** Seals the cursors of listings; at least 32 bytes, the same after a restart. */
  readonly cursorKey: Buffer;
  readonly stopping: Stopping;
}

/** The same with what the routes share. */
export interface RouteDependencies extends DeclawDependencies {
  readonly present: Presenter;
  readonly cursors: Cursors;
}

/** A fastify scope whose handlers get their types from the TypeBox schemas. */
export type Scope = FastifyInstance<RawServerDefault, RawRequestDefaultExpression, RawReplyDefaultExpression, FastifyBaseLogger, TypeBoxTypeProvider>;
