// A WebSocket over TLS to a server that is known by its pin; what a library would do, for
// client.js. A server's messages are one frame each (docs/protocol.md).
'use strict';
const { createHash, randomBytes } = require('crypto');
const tls = require('tls');

const hash = (name, data) => createHash(name).update(data).digest('base64');
const pinOf = ({ publicKey }) => hash('sha256', publicKey.export({ type: 'spki', format: 'der' }));

// opened(), took(text) and closed(why) are called as it goes. Returns { send(text), end(why) }.
function connect(url, pin, { opened, took, closed }) {
  const { hostname, host, port } = new URL(url), key = randomBytes(16).toString('base64');
  const accept = hash('sha1', `${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`); // RFC 6455, 1.3
  const to = { host: hostname.replace(/[[\]]/g, ''), port, rejectUnauthorized: false };
  const socket = tls.connect(to);
  let input = Buffer.alloc(0), open = false, why = 'the connection has ended';
  const end = (reason) => { why = reason; socket.destroy(); };
  const frame = (opcode, data) => { // RFC 6455, 5.2: whole, and masked; below 64 KiB
    const size = data.length < 126 ? [data.length] : [126, data.length >> 8, data.length & 255];
    const mask = randomBytes(4), head = Buffer.from([opcode | 128, ...size]);
    head[1] |= 128;
    socket.write(Buffer.concat([head, mask, data.map((byte, n) => byte ^ mask[n % 4])]));
  };
  socket.setTimeout(60000, () => end('it is silent'));
  socket.on('error', (error) => { why = error.message; }).on('close', () => closed(why));
  socket.on('secureConnect', () => {
    // Before anything is said. With a pin, names, dates and authorities do not count.
    const shown = pinOf(socket.getPeerX509Certificate());
    if (shown !== pin) return end(`its key is ${shown}, and should be ${pin}`);
    socket.write(`GET / HTTP/1.1\r\nHost: ${host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n`
      + `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`);
  }).on('data', (data) => {
    input = Buffer.concat([input, data]);
    const body = input.indexOf('\r\n\r\n') + 4;
    if (!open && body > 3) {
      if (!input.includes(accept)) return end(input.toString('utf8', 0, body));
      [input, open] = [input.subarray(body), true];
      opened();
    }
    while (open && !socket.destroyed) {
      const at = input[1] < 126 ? 2 : input[1] === 126 ? 4 : 10;
      if (input.length < at) return;
      const size = at === 2 ? input[1] : at === 4 ? input.readUInt16BE(2) : input.readUInt32BE(6);
      if (input.length < at + size) return;
      const opcode = input[0] & 15, payload = input.subarray(at, at + size);
      input = input.subarray(at + size);
      if (opcode === 1) took(payload.toString());
      else if (opcode === 9) frame(10, payload);
      else if (opcode === 8) socket.end();
    }
  });
  return { end, send: (text) => frame(1, Buffer.from(text)) };
}

module.exports = { connect, pinOf };
