import { readdirSync } from 'node:fs';
import { runTool, type ToolOptions } from '../tool.ts';

const registry = '/run/netns';

/** Names of the network namespaces of this machine. */
export function listNetns(): Set<string> {
  try {
    return new Set(readdirSync(registry));
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return new Set(); // nobody has made one yet
    throw reason;
  }
}

export function runInNetns(netns: string, command: string, args: readonly string[], options: ToolOptions = {}): Promise<string> {
  return runTool('ip', ['netns', 'exec', netns, command, ...args], options);
}

/** Several `ip` commands in one process; stops at the first that fails. */
export function ipBatch(netns: string | null, lines: readonly string[]): Promise<string> {
  return runTool('ip', [...(netns === null ? [] : ['-n', netns]), '-batch', '-'], { input: `${lines.join('\n')}\n` });
}

