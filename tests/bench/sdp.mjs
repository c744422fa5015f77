// The other side of `scripts/bench sdp`: JSON lines through sdp-transform, as a service in Node would do it.
//
// In: JSON lines with a field `sdp`. Out: the same with each SDP read and written by sdp-transform, which comes with JsSIP.
// Not here: what is measured (sdp.rs).
import { createRequire } from 'node:module';
import { once } from 'node:events';
import readline from 'node:readline';

const require = createRequire(new URL('../interop/browser/package.json', import.meta.url));
const sdp = require('sdp-transform');

const BATCH = 256; // Lines to one write, so that Node isn't measured by its system calls.
let lines = [];
const flush = async () => {
  if (!process.stdout.write(lines.join(''))) await once(process.stdout, 'drain');
  lines = [];
};
for await (const line of readline.createInterface({ input: process.stdin })) {
  const record = JSON.parse(line);
  record.sdp = sdp.write(sdp.parse(record.sdp));
  lines.push(`${JSON.stringify(record)}\n`);
  if (lines.length === BATCH) await flush();
}
await flush();
