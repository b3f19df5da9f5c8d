import type { SecretPlace } from '../network/inspection.ts';

/** A service whose way of taking a key is known. */
export interface Provider {
  /** What requests call it by. */
  readonly name: string;
  readonly display: string;
  readonly category: 'ai' | 'code' | 'payments' | 'communication' | 'search' | 'infrastructure' | 'productivity' | 'observability';
  /** What a key of it looks like, for people. */
  readonly keyHint: string;
  readonly docsUrl: string;
  /** Hosts are exact names. */
  readonly rules: readonly { readonly hosts: readonly string[]; readonly place: SecretPlace; readonly presetHeaders?: Readonly<Record<string, string>> }[];
  /** How its keys look: clients check that before they send one, so a stand-in looks the same. */
  readonly standIn: { readonly prefix: string; readonly length: number };
}

/** Stand-ins of secrets that belong to no provider. */
export const plainStandIn = Object.freeze({ prefix: 'ssrv_proxy_', length: 43 });

const bearer: SecretPlace = { kind: 'bearer' };
const header = (name: string, prefix = ''): SecretPlace => ({ kind: 'header', name, prefix });

/** By name. */
export const providers: readonly Provider[] = Object.freeze([
  { name: 'anthropic', display: 'Anthropic', category: 'ai', keyHint: 'sk-ant-…', docsUrl: 'https://docs.anthropic.com/en/api/overview', rules: [{ hosts: ['api.anthropic.com'], place: header('x-api-key'), presetHeaders: { 'anthropic-version': '2023-06-01' } }], standIn: { prefix: 'sk-ant-api03-', length: 48 } },
  { name: 'asana', display: 'Asana', category: 'productivity', keyHint: 'a personal access token', docsUrl: 'https://developers.asana.com/docs/authentication', rules: [{ hosts: ['app.asana.com'], place: bearer }], standIn: { prefix: '', length: 32 } },
  { name: 'cloudflare', display: 'Cloudflare', category: 'infrastructure', keyHint: 'an API token', docsUrl: 'https://developers.cloudflare.com/fundamentals/api/', rules: [{ hosts: ['api.cloudflare.com'], place: bearer }], standIn: { prefix: '', length: 40 } },
  { name: 'exa', display: 'Exa', category: 'search', keyHint: 'an API key', docsUrl: 'https://docs.exa.ai', rules: [{ hosts: ['api.exa.ai'], place: header('x-api-key') }], standIn: { prefix: '', length: 32 } },
  { name: 'firecrawl', display: 'Firecrawl', category: 'search', keyHint: 'fc-…', docsUrl: 'https://docs.firecrawl.dev', rules: [{ hosts: ['api.firecrawl.dev'], place: bearer }], standIn: { prefix: 'fc-', length: 36 } },
  { name: 'gemini', display: 'Google Gemini', category: 'ai', keyHint: 'AIza…', docsUrl: 'https://ai.google.dev/gemini-api/docs/api-key', rules: [{ hosts: ['generativelanguage.googleapis.com'], place: header('x-goog-api-key') }], standIn: { prefix: 'AIza', length: 35 } },
  {
    name: 'github', display: 'GitHub', category: 'code', keyHint: 'ghp_… or github_pat_…', docsUrl: 'https://docs.github.com/en/authentication',
    rules: [{ hosts: ['api.github.com'], place: bearer }, { hosts: ['github.com'], place: { kind: 'basic', username: 'x-access-token' } }], standIn: { prefix: 'ghp_', length: 36 },
  },
  { name: 'gitlab', display: 'GitLab', category: 'code', keyHint: 'glpat-…', docsUrl: 'https://docs.gitlab.com/api/rest/authentication/', rules: [{ hosts: ['gitlab.com'], place: header('private-token') }], standIn: { prefix: 'glpat-', length: 20 } },
  { name: 'linear', display: 'Linear', category: 'productivity', keyHint: 'lin_api_…', docsUrl: 'https://linear.app/developers', rules: [{ hosts: ['api.linear.app'], place: header('authorization') }], standIn: { prefix: 'lin_api_', length: 32 } },
  { name: 'notion', display: 'Notion', category: 'productivity', keyHint: 'ntn_…', docsUrl: 'https://developers.notion.com', rules: [{ hosts: ['api.notion.com'], place: bearer }], standIn: { prefix: 'ntn_', length: 43 } },
  { name: 'openai', display: 'OpenAI', category: 'ai', keyHint: 'sk-…', docsUrl: 'https://platform.openai.com/docs/api-reference', rules: [{ hosts: ['api.openai.com'], place: bearer }], standIn: { prefix: 'sk-proj-', length: 64 } },
  { name: 'openrouter', display: 'OpenRouter', category: 'ai', keyHint: 'sk-or-v1-…', docsUrl: 'https://openrouter.ai/docs', rules: [{ hosts: ['openrouter.ai'], place: bearer }], standIn: { prefix: 'sk-or-v1-', length: 64 } },
  { name: 'perplexity', display: 'Perplexity', category: 'ai', keyHint: 'pplx-…', docsUrl: 'https://docs.perplexity.ai', rules: [{ hosts: ['api.perplexity.ai'], place: bearer }], standIn: { prefix: 'pplx-', length: 48 } },
  { name: 'resend', display: 'Resend', category: 'communication', keyHint: 're_…', docsUrl: 'https://resend.com/docs', rules: [{ hosts: ['api.resend.com'], place: bearer }], standIn: { prefix: 're_', length: 24 } },
  { name: 'sentry', display: 'Sentry', category: 'observability', keyHint: 'sntrys_…', docsUrl: 'https://docs.sentry.io/api/auth/', rules: [{ hosts: ['sentry.io'], place: bearer }], standIn: { prefix: 'sntrys_', length: 32 } },
  { name: 'slack', display: 'Slack', category: 'communication', keyHint: 'xoxb-…', docsUrl: 'https://api.slack.com/authentication', rules: [{ hosts: ['slack.com'], place: bearer }], standIn: { prefix: 'xoxb-', length: 43 } },
  { name: 'stripe', display: 'Stripe', category: 'payments', keyHint: 'sk_live_… or sk_test_…', docsUrl: 'https://docs.stripe.com/api/authentication', rules: [{ hosts: ['api.stripe.com'], place: bearer }], standIn: { prefix: 'sk_test_', length: 24 } },
  { name: 'vercel', display: 'Vercel', category: 'infrastructure', keyHint: 'an access token', docsUrl: 'https://vercel.com/docs/rest-api', rules: [{ hosts: ['api.vercel.com'], place: bearer }], standIn: { prefix: 'vcp_', length: 24 } },
  { name: 'xai', display: 'xAI', category: 'ai', keyHint: 'xai-…', docsUrl: 'https://docs.x.ai', rules: [{ hosts: ['api.x.ai'], place: bearer }], standIn: { prefix: 'xai-', length: 80 } },
]);

export function providerOf(name: string): Provider | undefined {
  return providers.find((provider) => provider.name === name);
}
