// Drives headless Chromium for a test: one JSON command a line on stdin, one JSON answer a line on stdout.
//   {"open": URL}             starts the browser on this page
//   {"fill": SELECTOR, "text": TEXT}, {"click": SELECTOR}, {"read": SELECTOR}  like a user; each waits for it to be visible
//   {"phone": NAME, "with": ARGUMENT}  calls window.phone.NAME(ARGUMENT)
//   {"offer": SDP}            a fresh connection takes it and answers; the answer's m-lines, or why not
// An answer is {"ok": VALUE} or {"error": TEXT}. The end of stdin closes the browser.

import { createInterface } from "node:readline";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const profile = await mkdtemp(join(tmpdir(), "sipbox-chromium-"));
let context, page;

async function open(url) {
  context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    ignoreHTTPSErrors: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--ignore-certificate-errors",
      "--autoplay-policy=no-user-gesture-required",
      "--use-fake-device-for-media-stream",
      "--use-fake-ui-for-media-stream",
    ],
  });
  page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(15_000);
  page.on("console", (message) => process.stderr.write(`page: ${message.text()}\n`));
  page.on("pageerror", (error) => process.stderr.write(`page: ${error.stack}\n`));
  await page.goto(url);
}

// In the page.
async function takeOffer(sdp) {
  const connection = new RTCPeerConnection();
  try {
    await connection.setRemoteDescription({ type: "offer", sdp });
    const answer = await connection.createAnswer();
    await connection.setLocalDescription(answer);
    return { media: answer.sdp.split("\r\n").filter((line) => line.startsWith("m=")) };
  } catch (error) {
    return { refused: error.message };
  } finally {
    connection.close();
  }
}

async function carryOut(command) {
  if (typeof command.offer === "string") return page.evaluate(takeOffer, command.offer);
  if (command.open) return open(command.open);
  if (command.phone)
    return page.evaluate(([name, argument]) => window.phone[name](argument), [command.phone, command.with]);
  if (command.fill) return page.fill(command.fill, command.text);
  if (command.click) return page.click(command.click);
  if (command.read) return page.locator(command.read).filter({ visible: true }).textContent();
  throw new Error(`unknown command ${JSON.stringify(command)}`);
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { ok: (await carryOut(JSON.parse(line))) ?? null };
  } catch (error) {
    answer = { error: String(error.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await context?.close();
await rm(profile, { recursive: true, force: true });
