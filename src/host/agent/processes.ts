import type { ProcessInfo, ProcessKind, ProcessSpec } from '../../core/host.ts';
import { type Json, numberField, parseExit, processId, stringField } from './frames.ts';

/** The body that starts a process. */
export function processBody(spec: ProcessSpec): object {
  return {
    cmd: spec.cmd,
    kind: spec.kind,
    stdin: spec.stdin,
    ...(spec.argv === undefined ? {} : { argv: spec.argv }),
    ...(spec.user === undefined ? {} : { user: spec.user }),
    ...(spec.cwd === undefined ? {} : { cwd: spec.cwd }),
    ...(spec.env === undefined ? {} : { env: spec.env }),
    ...(spec.size === undefined ? {} : { cols: spec.size.cols, rows: spec.size.rows }),
    ...(spec.tag === undefined ? {} : { tag: spec.tag }),
  };
}

export function parseProcess(json: Json): ProcessInfo {
  const { env, exit } = json;
  return {
    id: processId(stringField(json, 'id')),
    pid: numberField(json, 'pid'),
    startedAt: numberField(json, 'started_at_ms'),
    cmd: stringField(json, 'cmd'),
    kind: stringField(json, 'kind') as ProcessKind,
    user: stringField(json, 'user'),
    cwd: stringField(json, 'cwd'),
    env: typeof env === 'object' && env !== null ? (env as Record<string, string>) : {},
    tag: typeof json['tag'] === 'string' ? json['tag'] : '',
    running: json['running'] === true,
    exit: typeof exit === 'object' && exit !== null ? parseExit(exit as Json) : null,
  };
}
