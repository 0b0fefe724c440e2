// Starts plugs of the npm package tplink-smarthome-simulator on free ports of loopback, one for each model named on
// the command line; prints their ports, a line each, and ends with its standard input.
'use strict';
const { createServer } = require('node:net');
const { Device } = require('tplink-smarthome-simulator');

// The package takes a free UDP port and then fails when TCP has that number in use, which on a busy machine is often.
// So a port that is free on TCP is looked for first, and another one if somebody was quicker.
async function start(model, data) {
  for (let attempt = 1; ; attempt += 1) {
    const port = await freePort();
    const device = new Device({ port, address: '127.0.0.1', model, data, unreliablePercent: 0 });
    device.deviceNetworking.on('error', (error) => console.error(model, error));
    try {
      await device.start();
      return port;
    } catch (error) {
      if (error.code !== 'EADDRINUSE' || attempt === 20) throw error;
    }
  }
}

function freePort() {
  return new Promise((found, failed) => {
    const server = createServer().once('error', failed);
    server.listen({ host: '127.0.0.1', port: 0 }, () => {
      const { port } = server.address();
      server.close(() => found(port));
    });
  });
}

async function main() {
  for (const [number, model] of process.argv.slice(2).entries()) {
    const mac = `50:c7:bf:aa:00:0${number}`;
    console.log(await start(model, { alias: `Npm ${model}`, mac, deviceId: `A${number}` }));
  }
}

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
main().catch((error) => {
  console.error(error);
  process.exit(1);
});
