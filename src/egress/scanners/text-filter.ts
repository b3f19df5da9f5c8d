import { beginningNeeded, type Content, contentOf } from './content.ts';
import { MultipartFilter, type PartFilter } from './multipart.ts';
import type { Syntax } from './view.ts';

export interface TextFilterOptions {
  /** Makes the filter of a text; a multipart body has several. */
  readonly make: (syntax: Syntax) => PartFilter;
  /** Called with why a text cannot be read. It passes untouched when this returns. */
  readonly unreadable: (why: string) => void;
  /** Called when something that is not text passes untouched. */
  readonly binary?: () => void;
}

/** Gives the texts of a body to filters: by its type, by how it begins, and part by part when it is multipart. What is not text passes. */
export function textFilter(contentType: string, options: TextFilterOptions): PartFilter {
  return new Opening(contentType, (beginning) => filterOf(contentOf(contentType, beginning), beginning, options));
}

function filterOf(content: Content, beginning: Buffer, options: TextFilterOptions): PartFilter | null {
  switch (content.kind) {
    case 'text':
      return options.make(content.syntax);
    case 'multipart':
      return new MultipartFilter({
        boundary: content.boundary,
        filterFor: (headers) => {
          const file = headers.get('content-disposition')?.includes('filename') === true;
          return textFilter(headers.get('content-type') ?? (file ? '' : 'text/plain'), options);
        },
      });
    case 'unreadable':
      options.unreadable(content.why);
      return null;
    default:
      if (beginning.length > 0) options.binary?.();
      return null;
  }
}

/** Waits for the beginning of a body before it chooses a filter. */
class Opening implements PartFilter {
  readonly #size: number;
  readonly #choose: (beginning: Buffer) => PartFilter | null;
  #beginning: Buffer = Buffer.alloc(0);
  #chosen: PartFilter | null | undefined = undefined;

  constructor(contentType: string, choose: (beginning: Buffer) => PartFilter | null) {
    this.#size = beginningNeeded(contentType);
    this.#choose = choose;
  }

  write(chunk: Buffer): Buffer {
    if (this.#chosen !== undefined) return this.#chosen === null ? chunk : this.#chosen.write(chunk);
    this.#beginning = Buffer.concat([this.#beginning, chunk]);
    return this.#beginning.length < this.#size ? Buffer.alloc(0) : this.#open();
  }

  end(): Buffer {
    const first = this.#chosen === undefined ? this.#open() : Buffer.alloc(0);
    return this.#chosen == null ? first : Buffer.concat([first, this.#chosen.end()]);
  }

  #open(): Buffer {
    const beginning = this.#beginning;
    this.#beginning = Buffer.alloc(0);
    this.#chosen = this.#choose(beginning);
    return this.#chosen === null ? beginning : this.#chosen.write(beginning);
  }
}

/** Through the first filter, then through the second. */
export function chained(first: PartFilter, second: PartFilter): PartFilter {
  return {
    write: (chunk) => second.write(first.write(chunk)),
    end: () => Buffer.concat([second.write(first.end()), second.end()]),
  };
}
