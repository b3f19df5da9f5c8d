import { settings } from '../config.ts';

/** What the command line can do, and every setting. */
export function helpText(): string {
  const width = Math.max(...settings.map((setting) => setting.name.length));
  const rows = settings.map((setting) => `  ${setting.name.padEnd(width)}  ${setting.meaning}${setting.default === '' ? '' : ` Default: ${setting.default}.`}`);
  return `Paddock: a self-hosted cloud of sandboxes for AI agents

  paddock start                 run the server in the foreground; Ctrl-C stops it, sandboxes keep running
  paddock stop                  stop the running server; sandboxes keep running
  paddock stop --pause          also save every sandbox with its memory, for a reboot; the next start brings them back
  paddock stop --all            also end every sandbox and take everything off this machine but the data directory
  paddock doctor                look at everything a sandbox needs, and say what to do
  paddock keys list             the API keys there are, with their last use
  paddock keys create <name> [--scope admin|write|read] [--expires 30d]
                                make one; it is shown once
  paddock keys revoke <key id>  make one invalid
  paddock secrets rotate-key    seal everything anew with a new master key; with the server stopped
  paddock policy explain [--allow RULE]… [--deny RULE]… TARGET
                                what outbound rules make of a URL, host, host:port or address; exit code 2 when blocked
  paddock policy explain SANDBOX TARGET
                                the same with the rules of a sandbox
  paddock gateway superserve    bring the Superserve SDKs, which always go to a public host, to this server; needs no privileges
  paddock templates list        the templates there are
  paddock templates build NAME (--file DOCKERFILE | --from IMAGE_OR_TEMPLATE [--run LINE]…)
                                build one and show its log; more options without arguments
  paddock templates logs NAME   the log of its last build, to its end
  paddock templates delete NAME
  paddock gc                    remove what a crash has left, and layers of builds that no template has; with the server stopped
  paddock version
  paddock help

Settings are environment variables:

${rows.join('\n')}
`;
}
