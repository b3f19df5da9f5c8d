// Runs in a guest's namespace: evaluates the body of an async function from each line of its input and writes what it returns.
import dgram from 'node:dgram';
import dns from 'node:dns';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import { createInterface } from 'node:readline';
import tls from 'node:tls';

const AsyncFunction = (async () => {}).constructor;
const resolver = new dns.promises.Resolver({ timeout: 1500, tries: 1 });
resolver.setServers(['8.8.8.8']);
const held = [];

/** What `connect` says, and after how many milliseconds. */
function attempt(host, port, ms = 3000) {
  return new Promise((resolve) => {
    const started = performance.now();
    const socket = net.connect({ host, port, lookup });
    const done = (outcome) => {
      resolve({ outcome, ms: performance.now() - started });
      socket.destroy();
    };
    socket.on('connect', () => done('connected')).on('error', (error) => done(error.code));
    setTimeout(() => done('hangs'), ms).unref();
  });
}

function lookup(name, options, callback) {
  resolver.resolve4(name).then(
    (all) => (options.all ? callback(null, all.map((address) => ({ address, family: 4 }))) : callback(null, all[0], 4)),
    callback,
  );
}

/** What comes back until the end, for bytes sent right after connecting; the outcome of the connection behind `|`. */
function converse(host, port, bytes, { endAfter = false, ms = 4000 } = {}) {
  return new Promise((resolve) => {
    const socket = net.connect({ host, port, lookup, allowHalfOpen: true });
    let got = '';
    const done = (outcome) => {
      resolve(`${got}|${outcome}`);
      socket.destroy();
    };
    socket.on('connect', () => {
      for (const part of [bytes].flat()) socket.write(typeof part === 'string' ? part : Buffer.from(part));
      if (endAfter) socket.end();
    });
    socket.on('data', (chunk) => (got += chunk.toString('latin1')));
    socket.on('end', () => done('end')).on('error', (error) => done(error.code));
    setTimeout(() => done('timeout'), ms).unref();
  });
}

/** Status, headers and body of one request over the given agent or none. */
function fetchText(url, options = {}) {
  const module = url.startsWith('https') ? https : http;
  return new Promise((resolve, reject) => {
    const request = module.request(url, { lookup, rejectUnauthorized: false, ...options }, (response) => {
      let body = '';
      response.on('data', (chunk) => (body += chunk)).on('end', () => resolve({ status: response.statusCode, headers: response.headers, trailers: response.trailers, body }));
      response.on('error', reject);
    });
    request.on('error', (error) => resolve({ status: 0, error: error.code ?? error.message }));
    request.end(options.body);
  });
}

const given = { attempt, converse, dgram, dns, fetchText, fs, held, http, http2, https, lookup, net, resolver, tls };

createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, code, args } = JSON.parse(line);
  try {
    const value = await new AsyncFunction(...Object.keys(given), 'args', code)(...Object.values(given), args);
    process.stdout.write(`${JSON.stringify({ id, value })}\n`);
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ id, error: error.stack ?? String(error) })}\n`);
  }
});
process.on('uncaughtException', (error) => process.stderr.write(`${error.stack}\n`));
