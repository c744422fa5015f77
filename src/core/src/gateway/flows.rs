//! The open connections of browsers, and who registered through each.
//!
//! RFC 5626 §5.1, and ARCHITECTURE.md on flow tokens. In: connections that open and close, answered REGISTERs. Out: the
//! connection of a token; what a closed connection took with it. No registration state beyond that.
//! Not here: what is said to the registrar (`super`).

use crate::auth::flow_token::client_hash;
use crate::flow::{ConnectionId, Flow};
use crate::limits;
use crate::sip::{Message, seconds};
use std::collections::BTreeMap;

/// A binding that an open connection stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    /// user@domain.
    pub aor: String,
    /// The Contact's URI as the browser wrote it.
    pub contact: String,
    /// The token that went into the Path of its REGISTER.
    pub token: String,
}

struct Connection {
    flow: Flow,
    bindings: Vec<Binding>,
    /// [`client_hash`] of those that its REGISTERs were answered for.
    clients: Vec<u64>,
}

#[derive(Default)]
pub(super) struct Flows {
    connections: BTreeMap<ConnectionId, Connection>,
    /// The newest connection of each registered client: where a token of an older one is sent.
    by_client: BTreeMap<u64, ConnectionId>,
}

impl Flows {
    pub fn open(&mut self, flow: Flow) {
        if let Some(id) = flow.connection {
            self.connections.insert(id, Connection { flow, bindings: Vec::new(), clients: Vec::new() });
        }
    }

    /// Forgets the connection; returns the bindings that went with it.
    pub fn close(&mut self, flow: &Flow) -> Vec<Binding> {
        let Some(id) = flow.connection else { return Vec::new() };
        let Some(connection) = self.connections.remove(&id) else { return Vec::new() };
        for client in connection.clients {
            if self.by_client.get(&client) == Some(&id) {
                self.by_client.remove(&client);
            }
        }
        connection.bindings
    }

    pub fn get(&self, id: ConnectionId) -> Option<Flow> {
        self.connections.get(&id).map(|connection| connection.flow)
    }

    /// A live connection that was authenticated as the same AoR and showed the same Contact host.
    pub fn of_client(&self, client: u64) -> Option<Flow> {
        self.by_client.get(&client).and_then(|&id| self.get(id))
    }

    /// A REGISTER of this connection was answered with 2xx: what it added stands, what it removed is forgotten.
    /// `token` is what its Path was given.
    pub fn registered(&mut self, flow: &Flow, request: &Message<'_>, token: &str) {
        let Some(id) = flow.connection else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(aor) = request.to().ok().and_then(|to| to.uri.aor()) else { return };
        let name = aor.to_string();
        if request.contact_is_wildcard() {
            connection.bindings.retain(|binding| binding.aor != name);
            return;
        }
        for contact in request.contacts().flatten() {
            let uri = String::from_utf8_lossy(contact.uri.as_bytes()).into_owned();
            let expires = contact.params.get("expires").map(seconds).or(request.expires());
            connection.bindings.retain(|binding| binding.aor != name || binding.contact != uri);
            if expires == Some(0) {
                continue;
            }
            // The oldest goes: its binding at the registrar then ends by its expiry, not with the connection.
            if connection.bindings.len() >= limits::BINDINGS_PER_CONNECTION {
                connection.bindings.remove(0);
            }
            let client = client_hash(&aor, contact.uri.host);
            if !connection.clients.contains(&client)
                && connection.clients.len() < limits::BINDINGS_PER_CONNECTION
            {
                connection.clients.push(client);
                self.by_client.insert(client, id);
            }
            connection.bindings.push(Binding { aor: name.clone(), contact: uri, token: token.to_owned() });
        }
    }

    pub fn dump(&self, out: &mut Vec<String>) {
        for connection in self.connections.values() {
            let aors: Vec<&str> = connection.bindings.iter().map(|binding| binding.aor.as_str()).collect();
            out.push(
                serde_json::json!({"flow": connection.flow.to_string(), "registered": aors}).to_string(),
            );
        }
    }
}
