// A browser's phone without a face: JsSIP, an oscillator as microphone, and an ear that keeps the decoded audio.
// In go the calls of `window.phone`, out comes what `report()` measured. RFC 7118, WebRTC. Not here: who drives it.

import JsSIP from "jssip";

const context = new AudioContext();
const log = [];
let ua, session, ear, microphone;

const note = (event, details = {}) => log.push({ event, ...details });

/** A track that carries a sine tone. */
function tone(hz) {
  const oscillator = new OscillatorNode(context, { frequency: hz });
  const gain = new GainNode(context, { gain: 0.3 });
  const sink = new MediaStreamAudioDestinationNode(context);
  oscillator.connect(gain).connect(sink);
  oscillator.start();
  return sink.stream;
}

/** Keeps what the browser decoded from a received track, as samples. */
class Ear {
  constructor(track) {
    this.samples = [];
    this.rate = 0;
    // Chromium decodes a remote track only while something plays it.
    this.player = new Audio();
    this.player.srcObject = new MediaStream([track]);
    this.player.play();
    this.listen(new MediaStreamTrackProcessor({ track }).readable.getReader());
  }

  async listen(reader) {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.rate = value.sampleRate;
      const plane = new Float32Array(value.numberOfFrames);
      value.copyTo(plane, { planeIndex: 0, format: "f32-planar" });
      value.close();
      this.samples.push(plane);
    }
  }

  /** 16-bit samples of everything so far, in base64: the driver measures, so that no browser code judges itself. */
  recording() {
    const length = this.samples.reduce((sum, plane) => sum + plane.length, 0);
    const bytes = new Uint8Array(length * 2);
    const view = new DataView(bytes.buffer);
    let at = 0;
    for (const plane of this.samples)
      for (const sample of plane) {
        view.setInt16(at, Math.max(-1, Math.min(1, sample)) * 32767, true);
        at += 2;
      }
    return { rate: this.rate, samples: bytes.toBase64?.() ?? base64(bytes) };
  }
}

function base64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768)
    text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}

function watch(next) {
  session = next;
  ear = undefined;
  const on = (event) => session.on(event, (e) => note(event, { originator: e?.originator, cause: e?.cause }));
  ["progress", "accepted", "confirmed", "ended", "failed"].forEach(on);
  const hook = (connection) =>
    connection.addEventListener("track", (event) => {
      note("track");
      ear = new Ear(event.track);
    });
  if (session.connection) hook(session.connection);
  else session.on("peerconnection", ({ peerconnection }) => hook(peerconnection));
}

window.phone = {
  /** Registers, and answers what comes in. */
  async register({ server, uri, password, hz }) {
    await context.resume();
    microphone = tone(hz);
    const socket = new JsSIP.WebSocketInterface(server);
    ua = new JsSIP.UA({ sockets: [socket], uri, password, register_expires: 120, session_timers: false });
    ua.on("newRTCSession", ({ originator, session: incoming }) => {
      note("session", { originator });
      if (originator !== "remote") return;
      watch(incoming);
      incoming.answer({ mediaStream: microphone, pcConfig: { iceServers: [] } });
    });
    ua.on("disconnected", () => note("disconnected"));
    const registered = new Promise((resolve, reject) => {
      ua.on("registered", () => resolve("registered"));
      ua.on("registrationFailed", ({ cause }) => reject(new Error(`not registered: ${cause}`)));
    });
    ua.start();
    return registered;
  },

  call({ target }) {
    const outgoing = ua.call(target, {
      mediaStream: microphone,
      mediaConstraints: { audio: true, video: false },
      pcConfig: { iceServers: [] },
    });
    watch(outgoing);
  },

  hangup() {
    session.terminate();
  },

  stop() {
    ua.stop();
  },

  log: () => log,

  async dtls() {
    if (!session?.connection) return "none";
    for (const stats of (await session.connection.getStats()).values())
      if (stats.type === "transport") return stats.dtlsState;
    return "none";
  },

  async report() {
    const report = { log, sent: 0, received: 0, lost: 0, dtls: "none", recording: ear?.recording() };
    const connection = session?.connection;
    if (!connection) return report;
    report.connection = connection.connectionState;
    for (const stats of (await connection.getStats()).values()) {
      if (stats.type === "outbound-rtp") report.sent += stats.packetsSent;
      if (stats.type === "inbound-rtp") {
        report.received += stats.packetsReceived;
        report.lost += stats.packetsLost;
      }
      if (stats.type === "transport") {
        report.dtls = stats.dtlsState;
        report.dtlsRole = stats.dtlsRole;
      }
    }
    return report;
  },
};
