/** One request, when its answer is out or its client has left. */
export interface MeasuredRequest {
  readonly wire: string;
  readonly method: string;
  /** The route's pattern, never the path; empty when there is none. */
  readonly route: string;
  readonly status: number;
  readonly seconds: number;
}

/** Hears of requests; whoever counts them implements this. What it is told becomes labels, so there are few of each. */
export interface RequestMeasures {
  began(): void;
  ended(request: MeasuredRequest): void;
  failed(wire: string, code: string): void;
}

/** The figures of this server, for whoever collects them. */
export interface Figures {
  readonly contentType: string;
  text(): Promise<string>;
}
