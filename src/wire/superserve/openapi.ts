import { Type } from 'typebox';
import type { Operation, Protocol } from '../openapi/document.ts';
import { CreateBody } from './create.ts';
import { ExecBody } from './exec.ts';
import { agentPrefix, controlPrefix } from './routing.ts';
import { PublishBody, TokenBody } from './routes/previews.ts';
import { PatchBody } from './routes/sandboxes.ts';
import { SnapshotBody } from './routes/snapshots.ts';
import { CreateBody as TemplateBody } from './template-create.ts';

const [sandboxes, snapshots, previews, inside, templates, records] = ['Sandboxes', 'Pausing and snapshots', 'Preview ports', 'Inside a sandbox', 'Templates', 'Records'] as const;

/** Calls to the inside are sent to the sandbox's own host, or name it. */
const named = { headers: { 'X-Superserve-Sandbox-Id': 'The sandbox, where the host does not name it.' } } as const;

const Paging = Type.Object({ limit: Type.Optional(Type.Integer()), offset: Type.Optional(Type.Integer()) });

const operations: Readonly<Record<string, Operation>> = {
  'POST /sandboxes': { tag: sandboxes, status: 201, summary: 'Create a sandbox', body: CreateBody },
  'GET /sandboxes': { tag: sandboxes, summary: 'List sandboxes', query: Paging },
  'GET /sandboxes/:id': { tag: sandboxes, summary: 'Look a sandbox up, with an access token' },
  'PATCH /sandboxes/:id': { tag: sandboxes, status: 204, summary: 'Change rules, metadata, timeouts, preview access', body: PatchBody },
  'DELETE /sandboxes/:id': { tag: sandboxes, status: 204, summary: 'Delete a sandbox' },
  'POST /sandboxes/:id/pause': { tag: snapshots, summary: 'Save it with memory and processes, and free what it holds' },
  'POST /sandboxes/:id/resume': { tag: snapshots, summary: 'Bring a paused sandbox back' },
  'POST /sandboxes/:id/activate': { tag: snapshots, summary: 'Make it run, whatever it takes, and give an access token' },
  'POST /sandboxes/:id/snapshot': { tag: snapshots, status: 201, summary: 'Save its state; it goes on', body: SnapshotBody },
  'GET /sandboxes/:id/snapshots': { tag: snapshots, summary: 'List the snapshots of a sandbox' },
  'GET /snapshots/:snapshotId': { tag: snapshots, summary: 'Look a snapshot up' },
  'PATCH /snapshots/:snapshotId': { tag: snapshots, summary: 'Rename a snapshot', body: Type.Object({ name: Type.String() }) },
  'DELETE /snapshots/:snapshotId': { tag: snapshots, status: 204, summary: 'Delete a snapshot' },
  'GET /sandboxes/:id/preview-ports': { tag: previews, summary: 'List published ports' },
  'POST /sandboxes/:id/preview-ports': { tag: previews, status: 201, summary: 'Publish a port', body: PublishBody },
  'DELETE /sandboxes/:id/preview-ports/:port': { tag: previews, status: 204, summary: 'Take a port back' },
  'POST /sandboxes/:id/preview-ports/:port/token': { tag: previews, summary: 'A token for a private port', body: TokenBody },
  'POST /sandboxes/:id/preview-ports/:port/token/rotate': { tag: previews, summary: 'Make all tokens of a port invalid' },
  'GET /sandboxes/:id/network': { tag: records, summary: 'What it connected to, or tried to', query: Paging },
  'GET /activity': { tag: records, summary: 'What happened in this team', query: Paging },
  'GET /secrets': { tag: 'Secrets', summary: 'List secrets; values are never shown' },
  'POST /secrets': { tag: 'Secrets', status: 201, summary: 'Add a secret' },
  'GET /secrets/:name': { tag: 'Secrets', summary: 'Look a secret up' },
  'PATCH /secrets/:name': { tag: 'Secrets', summary: 'Change a secret' },
  'DELETE /secrets/:name': { tag: 'Secrets', status: 204, summary: 'Delete a secret' },
  'GET /secrets/:name/audit': { tag: 'Secrets', summary: 'Where a secret was used' },
  'GET /secrets/:name/sandboxes': { tag: 'Secrets', summary: 'Sandboxes that have it' },
  'POST /sandboxes/:id/secrets': { tag: 'Secrets', summary: 'Attach a secret to a sandbox' },
  'DELETE /sandboxes/:id/secrets/:envKey': { tag: 'Secrets', status: 204, summary: 'Take a secret from a sandbox' },
  'POST /sandboxes/:id/secrets/check': { tag: 'Secrets', summary: 'What would become of a secret in a request' },
  'GET /templates': { tag: templates, summary: 'List templates' },
  'POST /templates': { tag: templates, status: 202, summary: 'Build a template', body: TemplateBody },
  'GET /templates/:templateId': { tag: templates, summary: 'Look a template up' },
  'DELETE /templates/:templateId': { tag: templates, status: 204, summary: 'Delete a template' },
  'GET /templates/:templateId/builds': { tag: templates, summary: 'List its builds' },
  'POST /templates/:templateId/builds': { tag: templates, status: 202, summary: 'Build it again' },
  'GET /templates/:templateId/builds/:buildId': { tag: templates, summary: 'How a build goes' },
  'DELETE /templates/:templateId/builds/:buildId': { tag: templates, summary: 'Cancel a build' },
  'GET /templates/:templateId/builds/:buildId/logs': { tag: templates, produces: 'text/event-stream', summary: 'Follow what a build writes' },
  'POST /exec': { tag: inside, ...named, summary: 'Run a command', body: ExecBody },
  'POST /exec/stream': { tag: inside, ...named, produces: 'text/event-stream', summary: 'Run a command and follow its output', body: ExecBody },
  'GET /files': { tag: inside, ...named, produces: 'application/octet-stream', summary: 'Read a file, or a directory as a zip archive' },
  'POST /files': { tag: inside, ...named, consumes: 'application/octet-stream', summary: 'Write a file', query: Type.Object({ path: Type.String() }) },
};

/** The Superserve wire for its OpenAPI document: the control plane, and the calls to the inside of sandboxes. */
export const superserveProtocol: Protocol = {
  title: 'Paddock: Superserve API',
  description:
    'The protocol of the Superserve SDKs. The control plane wants the API key in `X-API-Key`; calls to the inside of a sandbox want its access token in `X-Access-Token`, at `boxd-<id>.<domain>` or with its id in `X-Superserve-Sandbox-Id`. Commands and terminals over WebSocket are at `/exec/connect` and `/terminal`.',
  server: controlPrefix,
  pathOf: (url) => {
    for (const prefix of [controlPrefix, agentPrefix]) if (url.startsWith(`${prefix}/`) && !url.endsWith('*')) return url.slice(prefix.length);
    return null;
  },
  operations,
  security: { key: { type: 'apiKey', in: 'header', name: 'X-API-Key' }, token: { type: 'apiKey', in: 'header', name: 'X-Access-Token' } },
  securityOf: (path) => (/^\/(exec|files)(\/|$)/.test(path) ? 'token' : null),
  error: Type.Object({ error: Type.Object({ code: Type.String(), message: Type.String() }) }),
};
