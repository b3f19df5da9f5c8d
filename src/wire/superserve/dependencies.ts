import type { FastifyInstance, FastifyBaseLogger, RawReplyDefaultExpression, RawRequestDefaultExpression, RawServerDefault } from 'fastify';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { Access } from '../../core/access.ts';
import type { Clock } from '../../core/clock.ts';
import type { Files } from '../../core/files.ts';
import type { Networks } from '../../core/networks.ts';
import type { Previews } from '../../core/previews.ts';
import type { Processes } from '../../core/processes.ts';
import type { Sandboxes } from '../../core/sandboxes.ts';
import type { SecretAttachments } from '../../core/secrets/attachments.ts';
import type { Secrets } from '../../core/secrets/secrets.ts';
import type { EventStore } from '../../core/store.ts';
import type { TemplateCatalog } from '../../core/template.ts';
import type { Templates } from '../../core/templates/templates.ts';
import type { Stopping } from '../stopping.ts';
import type { AccessTokens } from './access-token.ts';
import type { PreviewTokens } from './preview-token.ts';
import type { SuperserveSettings } from './settings.ts';

/** What this wire needs of the rest of the server. */
export interface SuperserveDependencies {
  readonly access: Access;
  readonly sandboxes: Sandboxes;
  readonly processes: Processes;
  readonly files: Files;
  readonly networks: Networks;
  readonly previews: Previews;
  readonly events: Pick<EventStore, 'search'>;
  readonly secrets: Secrets;
  readonly secretAttachments: SecretAttachments;
  /** The built-in ones. */
  readonly templates: TemplateCatalog;
  readonly ownTemplates: Templates;
  readonly clock: Clock;
  /** Sandboxes are at `boxd-<id>.<domain>` and `<port>-<id>.<domain>`, besides the domains that the clients know. */
  readonly domain: string;
  readonly settings: SuperserveSettings;
  /** At least 32 bytes each, the same after a restart. */
  readonly keys: { readonly accessTokens: Buffer; readonly previewTokens: Buffer };
  readonly stopping: Stopping;
}

/** The same with what the routes share. */
export interface RouteDependencies extends SuperserveDependencies {
  readonly tokens: AccessTokens;
  readonly previewTokens: PreviewTokens;
}

/** A fastify scope whose handlers get their types from the TypeBox schemas. */
export type Scope = FastifyInstance<RawServerDefault, RawRequestDefaultExpression, RawReplyDefaultExpression, FastifyBaseLogger, TypeBoxTypeProvider>;
