import { Sandbox, type SandboxOpts } from '@declaw/sdk';
import { prepare } from './server.ts';

/**
 * One sandbox for all tests of the file that calls this, after the file's server. What the function returns is the SDK's object; it can
 * be used once the tests run.
 */
export function sandboxOfThisFile(options: SandboxOpts = {}): () => Sandbox {
  let sandbox: Sandbox | undefined;
  prepare(async () => {
    sandbox = await Sandbox.create({ timeout: 900, ...options });
  });
  return () => {
    if (sandbox === undefined) throw new Error('the sandbox has not been created');
    return sandbox;
  };
}

/** Runs one command as `user` and returns its standard output; any other exit code than 0 is a failure that shows the output. */
export async function output(sandbox: Sandbox, cmd: string, options: Parameters<Sandbox['commands']['run']>[1] = {}): Promise<string> {
  const { stdout, stderr, exitCode } = await sandbox.commands.run(cmd, { ...options, background: false });
  if (exitCode !== 0) throw new Error(`exit code ${exitCode} from: ${cmd}\n${stdout}${stderr}`);
  return stdout;
}
