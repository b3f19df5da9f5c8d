export type Language = 'python' | 'javascript' | 'shell' | 'php' | 'ruby' | 'java' | 'go' | 'c' | 'sql' | 'powershell';

export interface CodeRule {
  readonly name: string;
  readonly weight: number;
  /** Null for what is the same in every language. */
  readonly languages: readonly Language[] | null;
  /** Applied to one line. */
  readonly pattern: RegExp;
  /** Only an import that is not wrong by itself. */
  readonly suspicious?: boolean;
}

/** Marks of a language: a text is in each language that it has at least two of, or one that no other has. */
export const languageMarks: readonly (readonly [language: Language, mark: RegExp, weight: number])[] = [
  ['python', /^[ \t]{0,64}(?:def|class) \w{1,60}.{0,200}:[ \t]{0,8}$/m, 2], ['python', /^[ \t]{0,64}(?:import \w[\w.]{0,60}|from \w[\w.]{0,60} import )/m, 2], ['python', /^[ \t]{0,64}(?:if|for|while|with|try|elif|except)\b.{0,120}:[ \t]{0,8}$/m, 1], ['python', /\b(?:print|len|open|subprocess\.\w{1,20}|os\.\w{1,20})\(/, 1],
  ['javascript', /\b(?:const|let|var) \w{1,60} ?=/, 2], ['javascript', /=>|\bfunction\b ?\w{0,60}\(/, 1], ['javascript', /\brequire\(['"]|\bimport .{1,80} from ['"]|\bconsole\.\w{1,10}\(|\bprocess\.\w{1,20}|\bdocument\.\w{1,20}/, 2],
  ['shell', /^#!.{0,20}\b(?:ba|z|da)?sh\b/m, 3], ['shell', /^[ \t]{0,64}(?:sudo |export \w{1,60}=|echo |curl |wget |chmod |rm -|cd |apt(?:-get)? |bash |sh |nc |cat |mkfifo )/m, 2], ['shell', /\$\(|\bfi\b|\bdone\b|\|[ \t]{0,8}(?:ba)?sh\b/, 1],
  ['php', /<\?php/, 3], ['php', /\$_(?:GET|POST|REQUEST|COOKIE|SERVER)\b/, 2], ['php', /\$\w{1,40} ?= ?/, 1],
  ['ruby', /^[ \t]{0,64}(?:require ['"]|def \w{1,40}[?!]?\s*$|puts )/m, 2], ['ruby', /^[ \t]{0,64}end[ \t]{0,8}$/m, 1],
  ['java', /\b(?:public|private|protected) (?:static )?(?:class|void|final|String|int)\b/, 2], ['java', /\bimport (?:java|javax|org|com)\.[\w.]{1,80};|\bRuntime\.getRuntime\(\)|\bSystem\.out\b/, 2],
  ['go', /^package \w{1,40}[ \t]{0,8}$/m, 2], ['go', /\bfunc (?:\(\w{1,20} \*?\w{1,40}\) )?\w{1,60}\(|:= /, 1], ['go', /\bexec\.Command\(|\bfmt\.\w{1,20}\(/, 2],
  ['c', /^#include[ \t]{0,8}[<"]/m, 3], ['c', /\b(?:int|void|char) \*?\w{1,40}\(/, 1],
  ['sql', /\b(?:select .{1,200} from|insert into|update \w{1,60} set|delete from|drop (?:table|database)|union (?:all )?select)\b/i, 2],
  ['powershell', /\b(?:Invoke-\w{1,30}|New-Object|Get-\w{1,30}|Set-\w{1,30}|IEX)\b/i, 2], ['powershell', /\$\w{1,40} ?= ?.{0,40}-\w{1,20}|-EncodedCommand\b/i, 1],
];

const scripting: readonly Language[] = ['python', 'javascript', 'php', 'ruby'];

/** What is dangerous in a line of code, and how surely. */
export const codeRules: readonly CodeRule[] = [
  { name: 'reverse_shell', weight: 0.95, languages: null, pattern: /\/dev\/tcp\/[\w.$-]{1,80}\/|\b(?:nc|ncat|netcat)\b.{0,60}\s-\w{0,6}[ec]\w{0,3}\s{1,4}(?:\/bin\/)?(?:ba|z|da)?sh\b|\bmkfifo\b.{0,120}\b(?:nc|ncat|telnet|openssl)\b|\bsocat\b.{0,120}\bexec:|\bbash -i\b.{0,20}>&/i },
  { name: 'reverse_shell', weight: 0.95, languages: null, pattern: /\bos\.dup2\(.{0,60}fileno\(\)|\bpty\.spawn\(["']\/bin\/(?:ba)?sh|\bTCPSocket\.(?:new|open)\(.{0,120}\bexec\b|\bfsockopen\(.{0,160}\b(?:exec|shell_exec|proc_open)\b|\bNew-Object (?:System\.)?Net\.Sockets\.TCPClient\b/i },
  { name: 'pipe_to_shell', weight: 0.85, languages: null, pattern: /\b(?:curl|wget|fetch)\b.{1,240}\|\s{0,4}(?:sudo\s{1,4}(?:-\w{1,4}\s{1,4})?)?(?:\/(?:usr\/)?bin\/)?(?:ba|z|da)?sh\b|\b(?:ba|z)?sh\s{1,4}(?:-c\s{1,4}["']?)?[<$]\(\s{0,4}(?:curl|wget)\b|\|\s{0,4}(?:sudo )?(?:python3?|perl|ruby|node)(?:\s{1,4}-)?\s{0,4}$/i },
  { name: 'decode_and_run', weight: 0.85, languages: null, pattern: /\bbase64\s{1,4}(?:-d|--decode|-D)\b.{0,80}\|\s{0,4}(?:ba|z|da)?sh\b|\b(?:eval|exec|Function)\s{0,4}\(.{0,60}\b(?:b64decode|atob|base64_decode|fromCharCode|unhexlify|gzinflate|marshal\.loads)\b|-EncodedCommand\b|-enc\s{1,4}[A-Za-z0-9+/=]{40}/i },
  { name: 'download_and_run', weight: 0.85, languages: null, pattern: /\b(?:IEX|Invoke-Expression)\b.{0,120}\b(?:DownloadString|Invoke-WebRequest|iwr|Net\.WebClient)\b|\b(?:exec|eval)\(.{0,60}\b(?:requests\.get|urlopen|urllib\.request\.urlopen|file_get_contents\(["']https?)\b/i },
  { name: 'destructive', weight: 0.85, languages: null, pattern: /\brm\s{1,4}(?:-\w{1,10}\s{1,4}){1,3}(?:--no-preserve-root\s{1,4})?(?:\/(?:\s|\*|$)|~(?:\s|\/|$)|\$HOME\b)|\bmkfs(?:\.\w{1,8})?\s{1,4}\/dev\/|\bdd\b.{0,80}\bof=\/dev\/(?:sd|nvme|vd|xvd|hd)|:\(\)\s{0,4}\{\s{0,4}:\|:&\s{0,4}\};:|>\s{0,4}\/dev\/sd[a-z]\b/ },
  { name: 'eval_of_input', weight: 0.8, languages: scripting, pattern: /\b(?:eval|exec|execfile|assert|system|shell_exec|passthru|popen|instance_eval|create_function)\s{0,4}\(?.{0,80}(?:\binput\(|\bsys\.argv|\brequest\.|\breq\.(?:body|query|params)|\$_(?:GET|POST|REQUEST|COOKIE)|\bparams\[|\bgets\b|\blocation\.(?:hash|search)|\bprocess\.argv)/ },
  { name: 'eval', weight: 0.4, languages: scripting, pattern: /(?:^|[^\w.])(?:eval|exec)\s{0,4}\(\s{0,4}[^)\s"'`]|\bnew Function\(/ },
  { name: 'command_injection', weight: 0.65, languages: null, pattern: /\b(?:subprocess\.(?:run|call|Popen|check_output|check_call)\(.{0,160}\bshell\s{0,2}=\s{0,2}True|os\.(?:system|popen)\(\s{0,4}(?:f["']|["'].{0,120}["']\s{0,4}[%+]|\w{1,40}\s{0,4}[+)]))|\b(?:exec|execSync|spawn)\(\s{0,4}(?:`.{0,120}\$\{|["'].{0,120}["']\s{0,4}\+)|\bRuntime\.getRuntime\(\)\.exec\(.{0,80}\+|\bexec\.Command\(["'](?:ba)?sh["'],\s{0,4}["']-c["']/ },
  { name: 'unsafe_deserialisation', weight: 0.65, languages: null, pattern: /\b(?:pickle|cPickle|dill|marshal|shelve)\.loads?\(|\byaml\.(?:load|unsafe_load)\((?!.{0,120}(?:SafeLoader|CSafeLoader))|\bunserialize\(\s{0,4}\$|\bObjectInputStream\b|\bMarshal\.load\(|\bBinaryFormatter\b|\bnode-serialize\b/ },
  { name: 'sql_injection', weight: 0.65, languages: null, pattern: /\b(?:execute|query|raw|executeQuery|mysqli_query)\(\s{0,4}(?:f["'].{0,160}\{|["'`].{0,160}(?:["']\s{0,4}(?:\+|%|\.)\s{0,4}\$?\w|\$\{))|\bunion\s{1,8}(?:all\s{1,8})?select\b.{0,160}\b(?:password|information_schema|from)\b|'\s{0,4}or\s{1,4}'?1'?\s{0,4}=\s{0,4}'?1/i },
  { name: 'hard_coded_secret', weight: 0.6, languages: null, pattern: /\b\w{0,30}(?:password|passwd|secret|api_?key|access_?token|auth_?token|private_?key)\w{0,10}["']?\s{0,4}[:=]\s{0,4}["'](?!\$\{|<|your|example|changeme|xxx|\*)[^"'\s]{8,200}["']|\bAKIA[0-9A-Z]{16}\b|-----BEGIN (?:RSA |EC |OPENSSH )?PRIVATE KEY-----/i },
  { name: 'credential_theft', weight: 0.8, languages: null, pattern: /(?:\/etc\/shadow|\.ssh\/id_(?:rsa|ed25519|ecdsa)|\.aws\/credentials|\.kube\/config|\.netrc|\.docker\/config\.json|169\.254\.169\.254|metadata\.google\.internal)/ },
  { name: 'persistence', weight: 0.6, languages: null, pattern: /\bcrontab\s{1,4}-\s{0,4}$|>>\s{0,4}(?:~|\$HOME)?\/?(?:\.bashrc|\.profile|\.zshrc|\.ssh\/authorized_keys)|\/etc\/(?:cron\.\w{1,10}|ld\.so\.preload|rc\.local)|\bschtasks\b.{0,40}\/create|CurrentVersion\\+Run\b/i },
  { name: 'disabled_verification', weight: 0.45, languages: null, pattern: /\bverify\s{0,2}=\s{0,2}False\b|\brejectUnauthorized\s{0,2}:\s{0,2}false\b|\bInsecureSkipVerify\s{0,2}:\s{0,2}true\b|\bCURLOPT_SSL_VERIFYPEER\b.{0,20}(?:false|0)|\bssl\._create_unverified_context\b|\bNODE_TLS_REJECT_UNAUTHORIZED\b.{0,8}0/ },
  { name: 'weak_crypto', weight: 0.35, languages: null, pattern: /\bhashlib\.(?:md5|sha1)\(|\bcreateHash\(["'](?:md5|sha1)["']\)|\bDES\.new\(|\bMODE_ECB\b|\bCipher\.getInstance\(["'](?:DES|AES\/ECB)/ },
  { name: 'buffer_overflow', weight: 0.6, languages: ['c'], pattern: /\b(?:gets|strcpy|strcat|sprintf|vsprintf)\s{0,4}\(|\bscanf\(\s{0,4}"[^"]{0,40}%s/ },
  { name: 'permissions', weight: 0.35, languages: null, pattern: /\bchmod\s{1,4}(?:-R\s{1,4})?(?:0?777|a\+rwx|u\+s|[2467]755)\b|\bos\.chmod\(.{0,80}0o?777/ },
  { name: 'html_injection', weight: 0.4, languages: ['javascript', 'php'], pattern: /\.(?:innerHTML|outerHTML)\s{0,4}=\s{0,4}[^"'`;]{0,60}\w|\bdocument\.write\(\s{0,4}[^"')]|\becho\s{1,4}\$_(?:GET|POST|REQUEST)|\bdangerouslySetInnerHTML\b/ },
  { name: 'suspicious_import', weight: 0.35, languages: ['python', 'javascript'], suspicious: true, pattern: /^\s{0,8}(?:import|from)\s{1,4}(?:ctypes|pty|socket|pynput|keyboard|scapy|paramiko|pickle|marshal|winreg|impacket|pyautogui)\b|\brequire\(["'](?:node:)?(?:child_process|vm|net|dgram|cluster|repl|inspector)["']\)|\bfrom\s{1,4}["'](?:node:)?(?:child_process|vm|inspector)["']/ },
];
