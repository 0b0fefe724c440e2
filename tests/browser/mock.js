// A server with the page's real files and whatever plugs a test needs: hundreds, hostile ones, ones with a history.
// It speaks what src/http speaks; `real.test.js` checks the page against the program itself.
'use strict';
const { readFileSync } = require('node:fs');
const { createServer } = require('node:http');
const { join } = require('node:path');

const FILES = { '': ['index.html', 'text/html'], 'page.js': ['page.js', 'text/javascript'], 'page.css': ['page.css', 'text/css'] };
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

class Mock {
  /** `below` is a path such as Home Assistant's ingress puts before everything. */
  constructor({ plugs = [], token = null, control = true, below = '/' } = {}) {
    this.plugs = new Map(plugs.map((plug) => [plug.id, plug]));
    this.token = token;
    this.control = control;
    this.below = below;
    this.broker = { connected: true, sessions: 1 };
    this.listeners = new Set();
    this.sockets = new Set();
    this.commands = [];
    /** What a command does; a test may put its own here. */
    this.answer = (command) => {
      const plug = structuredClone(this.plugs.get(command.id));
      const outlet = plug.outlets.find(({ number }) => number === command.outlet);
      outlet.on = command.state === 'ON';
      this.change(plug);
      return { ok: true, command: 'set', duration_ms: 4 };
    };
    this.port = 0;
  }

  async start() {
    this.server = createServer((request, response) => this.serve(request, response));
    this.server.on('connection', (socket) => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
    });
    await new Promise((ready, failed) => {
      this.server.once('error', failed).listen(this.port, '127.0.0.1', ready);
    });
    this.port = this.server.address().port;
    return this;
  }

  /** As a bridge that is killed; `start` has it back on the same port. */
  async stop() {
    const closed = new Promise((done) => this.server.close(done));
    for (const socket of this.sockets) socket.destroy();
    await closed;
  }

  get url() {
    return `http://127.0.0.1:${this.port}${this.below}`;
  }

  get bridge() {
    const plugs = [...this.plugs.values()];
    const online = plugs.filter(({ availability }) => availability === 'online').length;
    return {
      version: '0.1.0', started: '2026-11-20T08:00:00Z', uptime: 273_840, broker: this.broker,
      online, plugs: plugs.length, power: null,
    };
  }

  get state() {
    return {
      bridge: this.bridge, may_control: this.control, needs_token: this.token !== null,
      plugs: [...this.plugs.values()],
    };
  }

  change(plug) {
    this.plugs.set(plug.id, plug);
    this.say('plug', plug);
  }

  remove(id) {
    this.plugs.delete(id);
    this.say('gone', { id });
  }

  say(event, data) {
    for (const listener of this.listeners) listener.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  serve(request, response) {
    response.setHeader('Content-Security-Policy', POLICY);
    const path = request.url.startsWith(this.below) ? request.url.slice(this.below.length) : null;
    const file = path !== null && FILES[path];
    if (file) {
      response.setHeader('Content-Type', `${file[1]}; charset=utf-8`);
      response.end(readFileSync(join(__dirname, '../../src/http/page', file[0])));
    } else if (path === 'api/state') {
      response.setHeader('Content-Type', 'application/json');
      response.end(JSON.stringify(this.state));
    } else if (path === 'api/events') {
      response.setHeader('Content-Type', 'text/event-stream');
      response.write(`event: state\ndata: ${JSON.stringify(this.state)}\n\n`);
      this.listeners.add(response);
      response.on('close', () => this.listeners.delete(response));
    } else if (path === 'api/set' && request.method === 'POST') {
      this.command(request, response);
    } else {
      response.writeHead(404).end();
    }
  }

  async command(request, response) {
    let body = '';
    for await (const part of request) body += part;
    if (this.token !== null && request.headers.authorization !== `Bearer ${this.token}`) {
      response.writeHead(401).end();
      return;
    }
    const command = JSON.parse(body);
    this.commands.push(command);
    const result = await this.answer(command);
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify(result));
  }
}

module.exports = { Mock };
