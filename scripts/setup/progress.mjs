const seconds = (since) => `${((Date.now() - since) / 1000).toFixed(1)} s`;

/** Tells the user what is going on: one line per step with the time it took; on a terminal the line counts while it waits. */
export class Progress {
  #stream;
  #live;

  constructor(stream = process.stderr) {
    this.#stream = stream;
    this.#live = Boolean(stream.isTTY);
    this.steps = [];
  }

  /** Runs `work` as a step named by `title`; `work` may return a sentence that is shown behind the time. */
  async step(title, work) {
    const started = Date.now();
    const paint = () => this.#stream.write(`\r\x1b[2K… ${title} ${seconds(started)}`);
    if (this.#live) paint();
    else this.#stream.write(`… ${title}\n`);
    const timer = this.#live ? setInterval(paint, 250) : undefined;
    try {
      const result = await work();
      this.steps.push(title);
      this.#end(`✓ ${title} (${seconds(started)})`);
      return result;
    } catch (error) {
      this.#end(`✗ ${title} (${seconds(started)})`);
      throw error;
    } finally {
      clearInterval(timer);
    }
  }

  note(line) {
    this.#end(line);
  }

  #end(line) {
    this.#stream.write(this.#live ? `\r\x1b[2K${line}\n` : `${line}\n`);
  }
}
