// A small web phone on JsSIP: register, call, answer, hang up, mute, DTMF. RFC 7118, WebRTC.
// It is a page for trying sipbox out; it keeps nothing, and its password goes to the gateway only.

import JsSIP from "jssip";

const $ = (id) => document.getElementById(id);
const fields = (form) => Object.fromEntries(new FormData(form));
const scheme = location.protocol === "https:" ? "wss:" : "ws:";

let ua, session, since;

$("account").server.value = `${scheme}//${location.host}/`;
const wanted = new URLSearchParams(location.search);
for (const name of ["user", "domain"]) if (wanted.has(name)) $("account")[name].value = wanted.get(name);

function log(text) {
  const line = document.createElement("li");
  line.textContent = `${new Date().toLocaleTimeString()}  ${text}`;
  $("log").prepend(line);
}

function state(kind, text) {
  $("state").dataset.state = kind;
  $("state").textContent = text;
}

function signedIn(is) {
  $("account").hidden = is;
  $("dial").hidden = !is;
}

$("account").addEventListener("submit", (event) => {
  event.preventDefault();
  const { user, domain, password, server } = fields($("account"));
  ua = new JsSIP.UA({
    sockets: [new JsSIP.WebSocketInterface(server)],
    uri: `sip:${user}@${domain}`,
    password,
    register_expires: 300,
  });
  state("off", "registering …");
  ua.on("registered", () => {
    state("on", `${user}@${domain}`);
    signedIn(true);
  });
  ua.on("unregistered", () => state("off", "not registered"));
  ua.on("registrationFailed", ({ cause }) => {
    state("bad", "not registered");
    log(`registration failed: ${cause}`);
    signedIn(false);
    ua.stop();
  });
  ua.on("disconnected", () => state("bad", "no connection"));
  ua.on("newRTCSession", ({ originator, session: next }) => {
    if (session && originator === "remote") return next.terminate({ status_code: 486 });
    watch(next, originator === "remote");
  });
  ua.start();
});

$("leave").addEventListener("click", () => {
  ua.stop();
  signedIn(false);
  state("off", "not registered");
});

$("dial").addEventListener("submit", (event) => {
  event.preventDefault();
  const { target } = fields($("dial"));
  ua.call(target.includes("@") ? target : `${target}@${fields($("account")).domain}`, options());
});

/** No STUN server: the relay answers from an address that the browser can reach. */
const options = () => ({ mediaConstraints: { audio: true, video: false }, pcConfig: { iceServers: [] } });

function watch(next, incoming) {
  session = next;
  since = undefined;
  $("peer").textContent = session.remote_identity.display_name || session.remote_identity.uri.toAor().replace("sip:", "");
  $("progress").textContent = incoming ? "calls you" : "calling …";
  $("answer").hidden = !incoming;
  $("mute").hidden = $("keys").hidden = true;
  $("mute").setAttribute("aria-pressed", "false");
  $("call").hidden = false;
  const hook = (connection) =>
    connection.addEventListener("track", ({ track }) => ($("ear").srcObject = new MediaStream([track])));
  if (session.connection) hook(session.connection);
  session.on("peerconnection", ({ peerconnection }) => hook(peerconnection));
  session.on("progress", () => !incoming && ($("progress").textContent = "ringing …"));
  session.on("confirmed", () => {
    since = Date.now();
    $("answer").hidden = true;
    $("mute").hidden = $("keys").hidden = false;
    log(`in a call with ${$("peer").textContent}`);
  });
  session.on("getusermediafailed", () => log("no microphone: the browser did not give one"));
  const over = ({ cause, originator }) => {
    log(`${$("peer").textContent}: ${cause ?? "ended"} (${originator})`);
    session = since = undefined;
    $("ear").srcObject = null;
    $("call").hidden = true;
  };
  session.on("ended", over);
  session.on("failed", over);
}

setInterval(() => {
  if (!since) return;
  const seconds = Math.floor((Date.now() - since) / 1000);
  $("progress").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}, 250);

$("answer").addEventListener("click", () => session?.answer(options()));
$("hangup").addEventListener("click", () => session?.terminate());
$("mute").addEventListener("click", ({ currentTarget: button }) => {
  const mute = button.getAttribute("aria-pressed") !== "true";
  if (mute) session?.mute({ audio: true });
  else session?.unmute({ audio: true });
  button.setAttribute("aria-pressed", String(mute));
});

for (const key of "123456789*0#") {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = key;
  button.addEventListener("click", () => {
    // As telephone-events where they were agreed (RFC 4733), else as INFO.
    const sender = session?.connection?.getSenders().find(({ dtmf }) => dtmf?.canInsertDTMF);
    session?.sendDTMF(key, { transportType: sender ? "RFC2833" : "INFO" });
  });
  $("keys").append(button);
}
