import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';
import type { Measures, Work } from '../core/measures.ts';
import type { ConnectionVerdict } from '../core/network/egress.ts';
import type { EndReason, WireName } from '../core/sandbox.ts';
import { Labels } from './labels.ts';

/** What is asked for when the figures are read, because nobody is told of it. */
export interface Sources {
  /** Living sandboxes by state. */
  sandboxes(): Promise<Readonly<Record<string, number>>>;
  /** Guests and slots on this machine that are nobody's at the moment. */
  occupancy(): { readonly waitingGuests: number; readonly keptGuests: number; readonly keptBytes: number; readonly readySlots: number };
}

/** One request, when it is over. */
interface EndedRequest {
  readonly wire: string;
  readonly method: string;
  readonly route: string;
  readonly status: number;
  readonly seconds: number;
}

const stageBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
const requestBuckets = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60];
const states = ['creating', 'running', 'pausing', 'paused', 'resuming', 'killing'] as const;
const methods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/** Everything that is counted, in the format of Prometheus. One per server; nothing is global. */
export class Metrics implements Measures {
  readonly #registry = new Registry();
  readonly #labels = new Labels();
  readonly #work: Counter<'operation' | 'wire' | 'outcome'>;
  readonly #workSeconds: Histogram<'operation'>;
  readonly #stages: Histogram<'operation' | 'stage'>;
  readonly #ends: Counter<'reason'>;
  readonly #connections: Counter<'verdict' | 'match_rule'>;
  readonly #requests: Counter<'wire' | 'method' | 'route' | 'status'>;
  readonly #requestSeconds: Histogram<'wire' | 'method' | 'route'>;
  readonly #failures: Counter<'wire' | 'code'>;
  readonly #open: Gauge;
  #sources: Sources | null = null;

  constructor(version: string) {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry, eventLoopMonitoringPrecision: 20 });
    new Gauge({ name: 'paddock_build_info', help: 'Always 1; the labels say what runs.', labelNames: ['version', 'node'], registers }).set({ version, node: process.versions.node }, 1);
    this.#work = new Counter({ name: 'paddock_operations_total', help: 'Creates, pauses and the like by the wire their sandbox was made through; outcome is ok or the code of the failure.', labelNames: ['operation', 'wire', 'outcome'], registers });
    this.#workSeconds = new Histogram({ name: 'paddock_operation_seconds', help: 'How long those that succeeded took.', labelNames: ['operation'], buckets: stageBuckets, registers });
    this.#stages = new Histogram({ name: 'paddock_operation_stage_seconds', help: 'How long each stage took, from the end of the one before.', labelNames: ['operation', 'stage'], buckets: stageBuckets, registers });
    this.#ends = new Counter({ name: 'paddock_sandbox_ends_total', help: 'Sandboxes that ended, by reason.', labelNames: ['reason'], registers });
    this.#connections = new Counter({ name: 'paddock_egress_connections_total', help: 'Connections and name lookups from inside sandboxes, by verdict and by what gave it.', labelNames: ['verdict', 'match_rule'], registers });
    this.#requests = new Counter({ name: 'paddock_http_requests_total', help: 'Requests by route pattern and status.', labelNames: ['wire', 'method', 'route', 'status'], registers });
    this.#requestSeconds = new Histogram({ name: 'paddock_http_request_seconds', help: 'Until the last byte of the answer, streams included.', labelNames: ['wire', 'method', 'route'], buckets: requestBuckets, registers });
    this.#failures = new Counter({ name: 'paddock_failures_total', help: 'Requests that failed, by code.', labelNames: ['wire', 'code'], registers });
    this.#open = new Gauge({ name: 'paddock_http_requests_open', help: 'Requests that are being answered.', registers });
    this.#gauges();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  /** Says where to ask when the figures are read. */
  ask(sources: Sources): void {
    this.#sources = sources;
  }

  stage(operation: Work, stage: string, seconds: number): void {
    this.#stages.observe({ operation, stage: this.#labels.bounded('stage', stage) }, seconds);
  }

  done(operation: Work, wire: WireName, failure: string | null, seconds: number): void {
    this.#work.inc({ operation, wire, outcome: failure ?? 'ok' });
    if (failure === null) this.#workSeconds.observe({ operation }, seconds);
  }

  ended(reason: EndReason): void {
    this.#ends.inc({ reason });
  }

  connections(verdict: ConnectionVerdict, matchRule: string, count: number): void {
    this.#connections.inc({ verdict: this.#labels.bounded('verdict', verdict), match_rule: this.#labels.bounded('match_rule', matchRule) }, count);
  }

  /** How HTTP requests go, for the wires. */
  readonly requests = {
    began: (): void => this.#open.inc(),
    ended: ({ wire, method: asked, route: pattern, status, seconds }: EndedRequest): void => {
      this.#open.dec();
      // A client may send any method; only what routes have is repeated.
      const method = methods.has(asked) ? asked : 'other';
      const route = this.#labels.bounded('route', pattern === '' ? 'none' : pattern, 500);
      this.#requests.inc({ wire, method, route, status: String(status) });
      this.#requestSeconds.observe({ wire, method, route }, seconds);
    },
    failed: (wire: string, code: string): void => this.#failures.inc({ wire, code: this.#labels.bounded('code', code) }),
  };

  #gauges(): void {
    const sources = (): Sources | null => this.#sources;
    const sandboxes = new Gauge({
      name: 'paddock_sandboxes',
      help: 'Sandboxes that have not ended, by state.',
      labelNames: ['state'],
      registers: [],
      async collect() {
        const counts = (await sources()?.sandboxes()) ?? {};
        for (const state of states) this.set({ state }, counts[state] ?? 0);
      },
    });
    this.#registry.registerMetric(sandboxes);
    const occupancy = [
      ['paddock_waiting_guests', 'Booted guests that wait for a create.', 'waitingGuests'],
      ['paddock_kept_guests', 'Paused sandboxes that are kept in memory.', 'keptGuests'],
      ['paddock_kept_guests_bytes', 'Memory that paused sandboxes are kept in.', 'keptBytes'],
      ['paddock_ready_slots', 'Network namespaces and disks built ahead.', 'readySlots'],
    ] as const;
    for (const [name, help, figure] of occupancy) {
      const gauge = new Gauge({
        name,
        help,
        registers: [],
        collect() {
          this.set(sources()?.occupancy()[figure] ?? 0);
        },
      });
      this.#registry.registerMetric(gauge);
    }
  }
}
