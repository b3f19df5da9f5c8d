import { execFileSync } from 'node:child_process';
import { accessSync, constants, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import puppeteer, { type Browser } from 'puppeteer-core';

/** Debian's own, in the order of preference: the first is the smaller one. */
const programs = ['/usr/bin/chromium-headless-shell', '/usr/bin/chromium'] as const;

/** A browser of the test's own, and its end. */
export interface TestBrowser extends AsyncDisposable {
  readonly browser: Browser;
}

/**
 * Starts Debian's browser with an empty profile, as a person would have set it up for the gateway: its proxy and its authority.
 *
 * @param proxy the gateway's, such as `http://127.0.0.1:7443`; loopback addresses go without.
 * @param authorityFile the certificate that ends every chain of the gateway's.
 */
export async function openBrowser(proxy: string, authorityFile: string): Promise<TestBrowser> {
  const executablePath = programs.find(isExecutable);
  if (executablePath === undefined || !isExecutable('/usr/bin/certutil')) {
    throw new Error('This test needs a browser, which npm test installs: run npm test as root on Debian 12, or apt-get install --no-install-recommends chromium-headless-shell libnss3-tools.');
  }
  const home = mkdtempSync(join(tmpdir(), 'paddock-browser-'));
  const trusted = join(home, '.pki/nssdb');
  mkdirSync(trusted, { recursive: true });
  execFileSync('certutil', ['-N', '-d', `sql:${trusted}`, '--empty-password']);
  execFileSync('certutil', ['-A', '-d', `sql:${trusted}`, '-n', 'gateway', '-t', 'C,,', '-i', authorityFile]);
  const browser = await puppeteer.launch({
    executablePath,
    headless: executablePath.endsWith('headless-shell') ? 'shell' : true,
    env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', HOME: home },
    userDataDir: join(home, 'profile'),
    // Chromium does not run as root inside its own sandbox.
    args: ['--no-sandbox', '--disable-quic', `--proxy-server=${proxy}`],
  });
  return {
    browser,
    [Symbol.asyncDispose]: async () => {
      await browser.close();
      rmSync(home, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
