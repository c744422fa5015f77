//! Documents: what publishers may send, and what watchers are told.
//!
//! RFC 3863 (PIDF), RFC 4235 §4 (dialog-info), XML 1.0 without document types. Goes in: published bodies, and whether there is a
//! binding. Comes out: whether a body is well-formed and of its package, and one full-state document of all of them.
//! One publisher's PIDF goes on byte for byte, rich states with it (RFC 4480); of several, the parts of each stand in one
//! document. Not here: who may publish, versions of subscriptions (`mod.rs`).

use crate::limits;
use crate::sip::Aor;
use crate::store::presence::{Package, State};
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use std::fmt;
use std::ops::Range;

/// Why a body is none of its package's documents, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: u64,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

/// One document that was read.
struct Parsed<'a> {
    text: &'a str,
    /// `xmlns="…"` and `xmlns:p="…"` of the root, as they stand: name and quoted value.
    namespaces: Vec<(String, String)>,
    /// Where the root's children lie.
    children: Vec<Child>,
}

struct Child {
    /// From `<` to the last `>`.
    range: Range<usize>,
    /// Where in it further attributes may stand: behind the element's name.
    attributes_at: usize,
    /// Names of the namespaces that it declares itself.
    declares: Vec<String>,
    /// Where the value of its attribute `id` lies.
    id: Option<Range<usize>>,
}

/// The root of a package's documents.
const fn root(package: Package) -> (&'static str, &'static str) {
    match package {
        Package::Presence => ("presence", "urn:ietf:params:xml:ns:pidf"),
        Package::Dialog => ("dialog-info", "urn:ietf:params:xml:ns:dialog-info"),
    }
}

/// Whether a body may be published in this package.
pub fn check(package: Package, body: &[u8]) -> Result<(), Fault> {
    parse(package, body).map(drop)
}

fn parse(package: Package, body: &[u8]) -> Result<Parsed<'_>, Fault> {
    let fault = |at: u64, what: &str| Fault { at, what: what.to_owned() };
    let text = std::str::from_utf8(body).map_err(|e| fault(e.valid_up_to() as u64, "not UTF-8"))?;
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.check_comments = true;
    let mut parsed = Parsed { text, namespaces: Vec::new(), children: Vec::new() };
    let (mut depth, mut elements, mut roots) = (0usize, 0usize, 0usize);
    let mut child: Option<Child> = None;
    loop {
        let at = reader.buffer_position();
        let event = reader
            .read_event()
            .map_err(|error| Fault { at: reader.error_position(), what: error.to_string() })?;
        match event {
            Event::Eof => break,
            Event::Start(ref start) | Event::Empty(ref start) => {
                let empty = matches!(event, Event::Empty(_));
                elements += 1;
                if elements > limits::XML_ELEMENTS {
                    return Err(fault(at, "too many elements"));
                }
                if depth + 1 > limits::XML_DEPTH {
                    return Err(fault(at, "nested too deeply"));
                }
                let attributes = attributes(start, text, at)?;
                match depth {
                    0 => {
                        roots += 1;
                        let (name, namespace) = root(package);
                        let prefix = start.name().prefix().map(|p| p.as_ref().to_owned());
                        let declared = match &prefix {
                            None => "xmlns".to_owned(),
                            Some(prefix) => format!("xmlns:{prefix}"),
                        };
                        let spaces: Vec<(String, String)> = attributes
                            .iter()
                            .filter(|a| is_namespace(&a.name))
                            .map(|a| {
                                (a.name.clone(), text.get(a.value.clone()).unwrap_or_default().to_owned())
                            })
                            .collect();
                        let right =
                            spaces.iter().any(|(name, value)| *name == declared && value == namespace);
                        if roots > 1 || start.local_name().as_ref() != name || !right {
                            return Err(fault(at, &format!("the root is not one <{name}>")));
                        }
                        parsed.namespaces = spaces;
                    }
                    1 => {
                        let begin = at as usize;
                        child = Some(Child {
                            range: begin..begin,
                            attributes_at: begin + 1 + start.name().as_ref().len(),
                            declares: attributes
                                .iter()
                                .filter(|a| is_namespace(&a.name))
                                .map(|a| a.name.clone())
                                .collect(),
                            id: attributes.iter().find(|a| a.name == "id").map(|a| a.value.clone()),
                        });
                    }
                    _ => {}
                }
                if !empty {
                    depth += 1;
                } else if depth == 1 {
                    finish(&mut parsed, &mut child, reader.buffer_position());
                }
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                if depth == 1 {
                    finish(&mut parsed, &mut child, reader.buffer_position());
                }
            }
            Event::DocType(_) => return Err(fault(at, "a document type is not taken")),
            // The five that XML has by itself, and characters by number: without a document type there are no others.
            Event::GeneralRef(name) => {
                let known =
                    name.is_char_ref() || ["lt", "gt", "amp", "apos", "quot"].contains(&name.as_ref());
                if !known || depth == 0 {
                    return Err(fault(at, "an entity that nobody declared"));
                }
            }
            Event::Text(words) => {
                if depth == 0 && !words.as_ref().chars().all(|c| c.is_ascii_whitespace()) {
                    return Err(fault(at, "text outside of the root"));
                }
            }
            Event::CData(_) if depth == 0 => return Err(fault(at, "text outside of the root")),
            Event::CData(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
    match (depth, roots) {
        (0, 1) => Ok(parsed),
        (0, _) => Err(fault(0, "no element")),
        _ => Err(fault(text.len() as u64, "it ends within an element")),
    }
}

fn finish(parsed: &mut Parsed<'_>, child: &mut Option<Child>, end: u64) {
    if let Some(mut child) = child.take() {
        child.range.end = end as usize;
        parsed.children.push(child);
    }
}

fn is_namespace(name: &str) -> bool {
    name == "xmlns" || name.starts_with("xmlns:")
}

struct Attribute {
    name: String,
    value: Range<usize>,
}

/// The attributes of a start tag, which begins at byte `at` of `text`.
fn attributes(start: &BytesStart<'_>, text: &str, at: u64) -> Result<Vec<Attribute>, Fault> {
    let mut found = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| Fault { at, what: error.to_string() })?;
        if attribute.value.contains('<') {
            return Err(Fault { at, what: "'<' in an attribute".to_owned() });
        }
        // The tag is borrowed from the text, so a value's place in it is the difference of their addresses.
        let begin = (attribute.value.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
        let value = begin..begin.wrapping_add(attribute.value.len());
        if text.get(value.clone()).is_none() {
            return Err(Fault { at, what: "an attribute that cannot be read".to_owned() });
        }
        found.push(Attribute { name: attribute.key.as_ref().to_owned(), value });
    }
    Ok(found)
}

/// What a watcher is told, before it has its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    head: String,
    /// Between the two stands the version; empty where the package has none.
    tail: String,
    versioned: bool,
}

impl Document {
    pub fn with_version(&self, version: u32) -> Vec<u8> {
        if self.versioned {
            format!("{}{version}{}", self.head, self.tail).into_bytes()
        } else {
            self.head.clone().into_bytes()
        }
    }

    /// Of presence: what its first `basic` says, for records.
    pub fn basic(&self) -> Option<&str> {
        basic(&self.head)
    }
}

/// The text of the first `basic` of a PIDF.
pub fn basic(text: &str) -> Option<&str> {
    let (_, behind) = text.split_once("basic>")?;
    Some(behind.split('<').next().unwrap_or_default().trim())
}

/// The full state of a presentity in one package. A publication that is no document any more (somebody else wrote it) is
/// left out.
pub fn compose(package: Package, state: &State) -> Document {
    let bodies: Vec<Parsed<'_>> = state
        .publications
        .iter()
        .filter(|publication| publication.package == package)
        .filter_map(|publication| parse(package, &publication.body).ok())
        .collect();
    let uri = escape(&uri_of(&state.presentity));
    match package {
        Package::Presence => {
            let head = match bodies.as_slice() {
                [] => {
                    let basic = if state.registered { "open" } else { "closed" };
                    pidf(
                        &state.presentity,
                        &format!(
                            "<tuple id=\"registration\"><status><basic>{basic}</basic></status></tuple>"
                        ),
                    )
                }
                [only] => only.text.to_owned(),
                [..] => pidf(&state.presentity, &merged(&bodies)),
            };
            Document { head, tail: String::new(), versioned: false }
        }
        Package::Dialog => Document {
            head: format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<dialog-info xmlns=\"{}\" version=\"",
                root(package).1
            ),
            tail: format!("\" state=\"full\" entity=\"{uri}\">{}</dialog-info>\r\n", merged(&bodies)),
            versioned: true,
        },
    }
}

/// A presence document of our own, with one tuple that says `basic`, and a note.
pub fn simple(presentity: &Aor, tuple: &str, open: bool, note: Option<&str>) -> String {
    let basic = if open { "open" } else { "closed" };
    let note = note.map(|note| format!("<note>{}</note>", escape(note))).unwrap_or_default();
    pidf(presentity, &format!("<tuple id=\"{tuple}\"><status><basic>{basic}</basic></status>{note}</tuple>"))
}

fn pidf(presentity: &Aor, content: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<presence xmlns=\"{}\" entity=\"{}\">{content}</presence>\r\n",
        root(Package::Presence).1,
        escape(&uri_of(presentity))
    )
}

fn uri_of(aor: &Aor) -> String {
    format!("sip:{aor}")
}

fn escape(text: &str) -> String {
    text.chars()
        // What XML 1.0 has no place for at all.
        .filter(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r'))
        .fold(String::with_capacity(text.len()), |mut out, c| {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                c => out.push(c),
            }
            out
        })
}

/// The children of all documents, one after another: each brings along the namespaces of the root that it leaves, and an `id`
/// that another has already gets a number (RFC 3863 §4.1.2: unique in the document).
fn merged(bodies: &[Parsed<'_>]) -> String {
    let mut out = String::new();
    let mut ids: Vec<String> = Vec::new();
    for body in bodies {
        for child in &body.children {
            let whole = out.len();
            let cut = |range: Range<usize>| body.text.get(range).unwrap_or_default();
            out.push_str(cut(child.range.start..child.attributes_at));
            for (name, value) in &body.namespaces {
                if !child.declares.contains(name) {
                    let quote = if value.contains('"') { '\'' } else { '"' };
                    out.push_str(&format!(" {name}={quote}{value}{quote}"));
                }
            }
            match &child.id {
                Some(id) => {
                    let mut name = cut(id.clone()).to_owned();
                    let mut number = 1;
                    while ids.contains(&name) {
                        number += 1;
                        name = format!("{}-{number}", cut(id.clone()));
                    }
                    out.push_str(cut(child.attributes_at..id.start));
                    out.push_str(&name);
                    out.push_str(cut(id.end..child.range.end));
                    ids.push(name);
                }
                None => out.push_str(cut(child.attributes_at..child.range.end)),
            }
            if out.len() > limits::COMPOSED_BYTES {
                out.truncate(whole);
                return out;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::presence::Publication;
    use crate::time::Instant;

    const PHONE: &str = "<?xml version='1.0'?>\n<presence xmlns='urn:ietf:params:xml:ns:pidf' \
        xmlns:r=\"urn:ietf:params:xml:ns:pidf:rpid\" entity='sip:bob@example.com'>\
        <tuple id='t1'><status><basic>open</basic><r:busy/></status></tuple></presence>";
    const DESK: &str = "<p:presence xmlns:p=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:bob@example.com\">\
        <p:tuple id=\"t1\"><p:status><p:basic>closed</p:basic></p:status></p:tuple><p:note/></p:presence>";

    fn state(bodies: &[(Package, &str)], registered: bool) -> State {
        let presentity = Aor::parse("bob@example.com").unwrap();
        let publications = bodies
            .iter()
            .enumerate()
            .map(|(n, (package, body))| Publication {
                presentity: presentity.clone(),
                package: *package,
                etag: n.to_string(),
                expires: Instant::from_secs(9),
                received: Instant::from_secs(1),
                body: body.as_bytes().to_vec(),
                sender: String::new(),
            })
            .collect();
        State { presentity, publications, registered }
    }

    fn text(package: Package, state: &State, version: u32) -> String {
        let text = String::from_utf8(compose(package, state).with_version(version)).unwrap();
        check(package, text.as_bytes()).unwrap_or_else(|fault| panic!("{fault}: {text}"));
        text
    }

    #[test]
    fn one_publisher_goes_through_untouched() {
        assert_eq!(text(Package::Presence, &state(&[(Package::Presence, PHONE)], false), 0), PHONE);
    }

    #[test]
    fn nobody_published_so_the_registration_tells() {
        let open = text(Package::Presence, &state(&[], true), 0);
        assert_eq!(basic(&open), Some("open"));
        let closed = text(Package::Presence, &state(&[], false), 0);
        assert_eq!(basic(&closed), Some("closed"));
        assert!(closed.contains("entity=\"sip:bob@example.com\""), "{closed}");
    }

    #[test]
    fn several_stand_in_one_document() {
        let both = text(
            Package::Presence,
            &state(&[(Package::Presence, PHONE), (Package::Presence, DESK)], true),
            0,
        );
        for part in [
            "<tuple xmlns=\"urn:ietf:params:xml:ns:pidf\" xmlns:r=\"urn:ietf:params:xml:ns:pidf:rpid\" id='t1'>",
            "<r:busy/>",
            "<p:tuple xmlns:p=\"urn:ietf:params:xml:ns:pidf\" id=\"t1-2\">",
            "<p:note xmlns:p=\"urn:ietf:params:xml:ns:pidf\"/>",
        ] {
            assert!(both.contains(part), "{part} in {both}");
        }
    }

    #[test]
    fn dialogs_are_full_state_with_a_version() {
        let one = "<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"7\" state=\"partial\" \
                   entity=\"sip:bob@example.com\"><dialog id=\"a\"><state>confirmed</state></dialog></dialog-info>";
        let text = text(Package::Dialog, &state(&[(Package::Dialog, one)], false), 42);
        assert!(text.contains("version=\"42\" state=\"full\" entity=\"sip:bob@example.com\""), "{text}");
        assert!(text.contains(" id=\"a\"><state>confirmed</state></dialog>"), "{text}");
    }

    #[test]
    fn what_is_composed_is_bounded() {
        // A long namespace comes again with each of many children.
        let long = format!(
            "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" xmlns:x=\"{}\">{}</presence>",
            "u".repeat(4000),
            "<note>n</note>".repeat(200)
        );
        let composed = text(
            Package::Presence,
            &state(&[(Package::Presence, &long), (Package::Presence, PHONE)], true),
            0,
        );
        assert!(composed.len() < limits::COMPOSED_BYTES + 500, "{}", composed.len());
        assert!(composed.contains("<note"), "{composed}");
    }

    #[test]
    fn refuses_what_is_no_document() {
        let deep = format!(
            "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\">{}{}</presence>",
            "<a>".repeat(limits::XML_DEPTH),
            "</a>".repeat(limits::XML_DEPTH)
        );
        let wide = format!(
            "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\">{}</presence>",
            "<a/>".repeat(limits::XML_ELEMENTS)
        );
        for bad in [
            "",
            "hello",
            "<presence/>",
            "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\">",
            "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\"></presenc>",
            "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\"/><presence xmlns=\"urn:ietf:params:xml:ns:pidf\"/>",
            "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" a=\"1\" a=\"2\"/>",
            "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\"/>trailing",
            "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\">&bomb;</presence>",
            "<!DOCTYPE a [<!ENTITY b \"c\">]><presence xmlns=\"urn:ietf:params:xml:ns:pidf\"/>",
            "<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\"/>",
            &deep,
            &wide,
        ] {
            assert!(check(Package::Presence, bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(check(Package::Presence, b"<presence \xff/>").unwrap_err().at, 10);
        check(Package::Presence, PHONE.as_bytes()).unwrap();
        check(Package::Presence, DESK.as_bytes()).unwrap();
    }
}
