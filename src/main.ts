import { ConfigError, parseConfig } from './config.ts';
import { OperatorError } from './commands/data-dir.ts';
import { HostSetupError } from './host/setup-error.ts';

/** The command line. Each command is loaded when it is asked for: `paddock keys` needs no HTTP server. */
async function main(args: readonly string[]): Promise<number> {
  const [command = 'help', ...rest] = args;
  switch (command) {
    case 'help':
    case '--help':
    case '-h':
      process.stdout.write((await import('./commands/help.ts')).helpText());
      return 0;
    case 'version':
    case '--version':
    case '-v':
      process.stdout.write(`${(await import('./commands/version.ts')).version}\n`);
      return 0;
  }
  const { config, warnings } = parseConfig(process.env);
  if (needRoot.has(command) && process.getuid?.() !== 0) {
    throw new OperatorError(`"paddock ${command}" needs root: sandboxes take network namespaces, mounts and cgroups. Run it as root.`);
  }
  switch (command) {
    case 'start':
      expectNone(rest);
      return (await import('./commands/start.ts')).start(config, warnings);
    case 'stop':
      expectNone(rest.filter((each) => each !== '--all' && each !== '--pause'));
      if (rest.includes('--all') && rest.includes('--pause')) throw new OperatorError('stop takes --pause, which saves the sandboxes, or --all, which ends them; not both.');
      return (await import('./commands/stop.ts')).stop(config, { all: rest.includes('--all'), pause: rest.includes('--pause') });
    case 'doctor':
      expectNone(rest);
      return (await import('./commands/doctor.ts')).doctor(config);
    case 'keys':
      return (await import('./commands/keys.ts')).keys(config, rest);
    case 'secrets':
      return (await import('./commands/secrets.ts')).secrets(config, rest);
    case 'policy':
      return (await import('./commands/policy.ts')).policy(config, rest);
    case 'templates':
      return (await import('./commands/templates.ts')).templates(config, rest);
    case 'gateway':
      return (await import('./commands/gateway.ts')).gateway(config, rest);
    case 'gc':
      expectNone(rest);
      return (await import('./commands/gc.ts')).gc(config);
    default:
      throw new OperatorError(`There is no command "${command}". "paddock help" shows all.`);
  }
}

const needRoot: ReadonlySet<string> = new Set(['start', 'stop', 'gc', 'keys', 'secrets', 'templates']);

function expectNone(args: readonly string[]): void {
  if (args.length > 0) throw new OperatorError(`"${args.join(' ')}" is not understood. "paddock help" shows all commands.`);
}

try {
  process.exitCode = await main(process.argv.slice(2));
  // What is left open by then is not worth waiting for: everything that matters was closed by the command.
  process.exit();
} catch (error) {
  if (error instanceof OperatorError || error instanceof ConfigError || error instanceof HostSetupError) process.stderr.write(`paddock: ${error.message}\n`);
  else process.stderr.write(`paddock: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exit(1);
}
