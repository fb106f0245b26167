// Prints a local sysadmd's events, one a line, each once, across cuts and restarts of the daemon:
//   node client.js STATE_DIR CURSOR_FILE      (node 16 or newer; nothing to install)
// docs/protocol.md explains what is said here.
'use strict';
const { X509Certificate } = require('crypto');
const { existsSync, readFileSync, renameSync, rmSync, writeFileSync } = require('fs');
const { connect, pinOf } = require('./websocket.js');

const [stateDir, cursorFile] = process.argv.slice(2);
const read = (file) => readFileSync(file, 'utf8').trim();
const systems = ['dispatcher', 'life-preserver', 'system-state'];
let pause = 500;

function again(why) {
  console.error(`sysadmd: ${why}; connecting again`);
  setTimeout(begin, pause * (0.5 + Math.random() / 2));
  pause = Math.min(2 * pause, 30000);
}

function begin() {
  let endpoint, pin, prev;
  try {
    endpoint = JSON.parse(read(`${stateDir}/endpoint.json`));
    pin = pinOf(new X509Certificate(read(endpoint.certificate)));
  } catch (error) { return again(error.message); } // the daemon does not run
  const ask = (id, namespace, name, args) =>
    server.send(JSON.stringify({ namespace, name, id, args }));

  function opened() {
    ask('login', 'rpc', 'auth_token', { token: read(endpoint.token_file) });
  }

  function took(text) {
    const { name, id, args, ...frame } = JSON.parse(text);
    if (name === 'error') {
      // The cursor is of another history: begin again with all that there is.
      if (id === 'subscribe' && args.code === 400) rmSync(cursorFile, { force: true });
      server.end(`${args.code} ${args.detail}`);
    } else if (id === 'login') {
      const since = existsSync(cursorFile) ? read(cursorFile) : 'oldest';
      ask('subscribe', 'events', 'subscribe', { systems, since });
    } else if (id === 'subscribe') {
      [pause, prev] = [500, args.prev];
    } else if (name !== 'heartbeat') {
      if (frame.prev !== prev) return server.end(`an event is missing behind ${prev}`);
      console.log(text); // a gap, too: it says how many events are lost
      // If this ends between the two, one event comes again.
      writeFileSync(`${cursorFile}.new`, prev = frame.cursor);
      renameSync(`${cursorFile}.new`, cursorFile);
    }
  }

  const server = connect(endpoint.url, pin, { opened, took, closed: again });
}

begin();
