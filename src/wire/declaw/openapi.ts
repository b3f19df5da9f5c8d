import { Type } from 'typebox';
import type { Operation, Protocol } from '../openapi/document.ts';

const events = { produces: 'text/event-stream' } as const;
const bytes = { produces: 'application/octet-stream' } as const;
const upload = { consumes: 'application/octet-stream' } as const;

const [sandboxes, snapshots, commands, files, network, templates, volumes] = ['Sandboxes', 'Pausing and snapshots', 'Commands', 'Files', 'Network', 'Templates', 'Volumes'] as const;

const Page = Type.Object({ limit: Type.Optional(Type.Integer()), next_token: Type.Optional(Type.String()) });
const Listing = Type.Object({ ...Page.properties, offset: Type.Optional(Type.Integer()), state: Type.Optional(Type.String()) });

const operations: Readonly<Record<string, Operation>> = {
  'POST /sandboxes': { tag: sandboxes, status: 201, summary: 'Create a sandbox, from a template or a snapshot', headers: { 'Idempotency-Key': 'One key makes one sandbox, for 24 hours; 1 to 255 characters.' } },
  'GET /sandboxes': { tag: sandboxes, summary: 'List sandboxes, newest first; also by metadata.NAME=VALUE', query: Listing },
  'GET /sandboxes/:id': { tag: sandboxes, summary: 'Look a sandbox up, also one that has ended' },
  'DELETE /sandboxes/:id': { tag: sandboxes, summary: 'End a sandbox' },
  'POST /sandboxes/kill-many': { tag: sandboxes, summary: 'End many sandboxes' },
  'GET /sandboxes/:id/status': { tag: sandboxes, summary: 'Whether it runs' },
  'PATCH /sandboxes/:id/timeout': { tag: sandboxes, summary: 'Set its timeout; the countdown starts again' },
  'GET /sandboxes/:id/metrics': { tag: sandboxes, summary: 'CPU, memory and disk that it uses now' },
  'POST /sandboxes/:id/fork': { tag: sandboxes, status: 201, summary: 'New sandboxes that go on from the state of this one' },
  'POST /sandboxes/:id/pause': { tag: snapshots, summary: 'Save it with memory and processes, and free what it holds' },
  'POST /sandboxes/:id/resume': { tag: snapshots, summary: 'Bring a paused sandbox back' },
  'POST /sandboxes/:id/snapshot': { tag: snapshots, summary: 'Save its state; it goes on' },
  'POST /sandboxes/:id/snapshots': { tag: snapshots, summary: 'Save its state; it goes on' },
  'GET /sandboxes/:id/snapshots': { tag: snapshots, summary: 'List the snapshots of a sandbox' },
  'DELETE /sandboxes/:id/snapshots/:snapshotId': { tag: snapshots, summary: 'Delete a snapshot' },
  'GET /snapshots': { tag: snapshots, summary: 'List snapshots', query: Type.Object({ ...Page.properties, sandbox_id: Type.Optional(Type.String()) }) },
  'POST /sandboxes/:id/restore': { tag: snapshots, summary: 'Put a sandbox back to a snapshot' },
  'POST /sandboxes/:id/commands': { tag: commands, summary: 'Run a command and wait, or start one in the background' },
  'POST /sandboxes/:id/commands/stream': { tag: commands, ...events, summary: 'Run a command and follow its output' },
  'GET /sandboxes/:id/commands': { tag: commands, summary: 'List processes' },
  'GET /sandboxes/:id/commands/:pid/wait': { tag: commands, summary: 'Wait for a process' },
  'DELETE /sandboxes/:id/commands/:pid': { tag: commands, summary: 'End a process' },
  'POST /sandboxes/:id/commands/:pid/stdin': { tag: commands, summary: 'Write to its standard input' },
  'POST /sandboxes/:id/stdio': { tag: commands, summary: 'Start a program with standard input and output' },
  'POST /sandboxes/:id/stdio/:cmdId/stdin': { tag: commands, summary: 'Write to its standard input' },
  'POST /sandboxes/:id/stdio/:cmdId/stdin/close': { tag: commands, summary: 'Close its standard input' },
  'DELETE /sandboxes/:id/stdio/:cmdId': { tag: commands, summary: 'End it' },
  'GET /sandboxes/:id/stdio/:cmdId/stream': { tag: commands, ...events, summary: 'Follow its output, from any entry on' },
  'POST /sandboxes/:id/pty': { tag: commands, summary: 'Open a terminal' },
  'POST /sandboxes/:id/pty/:pid/stdin': { tag: commands, summary: 'Type into a terminal' },
  'PATCH /sandboxes/:id/pty/:pid': { tag: commands, summary: 'Resize a terminal' },
  'DELETE /sandboxes/:id/pty/:pid': { tag: commands, summary: 'Close a terminal' },
  'GET /sandboxes/:id/pty/:pid/stream': { tag: commands, ...events, summary: 'Follow a terminal' },
  'GET /sandboxes/:id/files': { tag: files, ...bytes, summary: 'Read a file' },
  'GET /sandboxes/:id/files/raw': { tag: files, ...bytes, summary: 'Read a file' },
  'PUT /sandboxes/:id/files/raw': { tag: files, ...upload, summary: 'Write a file from a stream of bytes' },
  'POST /sandboxes/:id/files': { tag: files, summary: 'Write a text file' },
  'POST /sandboxes/:id/files/batch': { tag: files, summary: 'Write many files' },
  'GET /sandboxes/:id/files/list': { tag: files, summary: 'List a directory' },
  'GET /sandboxes/:id/files/exists': { tag: files, summary: 'Whether a path exists' },
  'GET /sandboxes/:id/files/info': { tag: files, summary: 'What is at a path' },
  'DELETE /sandboxes/:id/files': { tag: files, summary: 'Remove a file or directory' },
  'PATCH /sandboxes/:id/files': { tag: files, summary: 'Rename a file or directory' },
  'POST /sandboxes/:id/files/mkdir': { tag: files, summary: 'Make a directory' },
  'GET /sandboxes/:id/network': { tag: network, summary: 'What it connected to, or tried to' },
  'PUT /sandboxes/:id/network': { tag: network, summary: 'Replace its outbound rules' },
  'GET /sandboxes/:id/network/explain': { tag: network, summary: 'What its rules make of a destination, and which one' },
  'POST /network/explain': { tag: network, summary: 'What rules would make of a destination' },
  'GET /sandboxes/:id/audit': { tag: network, summary: 'Everything that happened to it' },
  'GET /templates': { tag: templates, summary: 'List templates' },
  'GET /templates/:templateId': { tag: templates, summary: 'Look a template up' },
  'DELETE /templates/:templateId': { tag: templates, summary: 'Delete a template' },
  'POST /templates/build': { tag: templates, status: 201, summary: 'Build a template' },
  'POST /templates/:templateId/rebuild': { tag: templates, status: 201, summary: 'Build it again' },
  'GET /templates/builds/:buildId': { tag: templates, summary: 'How a build goes' },
  'GET /volumes': { tag: volumes, summary: 'List volumes' },
  'POST /volumes': { tag: volumes, status: 201, consumes: 'application/gzip', summary: 'Make a volume from an archive' },
  'GET /volumes/:volumeId': { tag: volumes, summary: 'Look a volume up' },
  'DELETE /volumes/:volumeId': { tag: volumes, summary: 'Delete a volume' },
  'GET /volumes/:volumeId/download': { tag: volumes, produces: 'application/gzip', summary: 'Its files as an archive' },
  'POST /sandboxes/:id/volumes/:volumeId/commit': { tag: volumes, summary: 'Put the files of a sandbox back into a volume' },
  'POST /sandboxes/:id/volumes/snapshot': { tag: volumes, summary: 'A new volume from a directory of a sandbox' },
};

/** The Declaw wire for its OpenAPI document. */
export const declawProtocol: Protocol = {
  title: 'Paddock: Declaw API',
  description: 'The protocol of the Declaw SDKs. Send the API key in `X-API-Key`, or in `Authorization` as a bearer token; never in the query.',
  server: '/',
  pathOf: (url) => (/^\/(sandboxes|snapshots|templates|volumes|network|teams|vault|governance|accounts|auth)(\/|$)/.test(url) ? url : null),
  operations,
  security: { bearer: { type: 'http', scheme: 'bearer' }, key: { type: 'apiKey', in: 'header', name: 'X-API-Key' } },
  error: Type.Object({ message: Type.String(), code: Type.String() }),
};
