// Starts plugs of the npm package tplink-smarthome-simulator on free ports of loopback, one for each model named on
// the command line; prints their ports, a line each, and ends with its standard input.
'use strict';
const { Device } = require('tplink-smarthome-simulator');

async function main() {
  for (const [number, model] of process.argv.slice(2).entries()) {
    const mac = `50:c7:bf:aa:00:0${number}`;
    const data = { alias: `Npm ${model}`, mac, deviceId: `A${number}` };
    const device = new Device({ port: 0, address: '127.0.0.1', model, data, unreliablePercent: 0 });
    await device.start();
    console.log(device.port || device.deviceNetworking.port);
  }
}

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
main().catch((error) => {
  console.error(error);
  process.exit(1);
});
