//! The flag `sdp-attr`: attributes that are added, removed, or substituted as they stand.
//!
//! In: `{"audio": {"add": ["x-odd:1"], "remove": ["ptime"], "substitute": [["sendrecv", "sendonly"]]}}`; in place of a kind of
//! media `session` (also `global`, `none`). Out: rules. Not here: their application (`rewrite::attributes`).

use super::Value;
use super::flags::list;

/// Rules of the session's part, or of one kind of media.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `audio` …; empty: the session's part.
    pub section: String,
    pub add: Vec<String>,
    /// A whole attribute, `name` or `name:value`; or a name, and then all of it.
    pub remove: Vec<String>,
    pub substitute: Vec<(String, String)>,
}

/// All rules of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manipulations {
    pub rules: Vec<Rules>,
}

impl Manipulations {
    pub(super) fn take_dict(&mut self, value: &Value, ignored: &mut Vec<String>) {
        let Some(dict) = value.as_dict() else { return ignored.push("sdp-attr".to_owned()) };
        for (section, commands) in dict.iter() {
            let section = match section {
                "session" | "global" | "none" => "",
                other => other,
            };
            let mut rules = Rules { section: section.to_owned(), ..Rules::default() };
            for (command, value) in commands.as_dict().into_iter().flat_map(|dict| dict.iter()) {
                match command {
                    "add" => rules.add = list(value).into_iter().filter(|text| is_line(text)).collect(),
                    "remove" => rules.remove = list(value),
                    "substitute" => {
                        let pairs = value.as_list().unwrap_or_default().iter();
                        rules.substitute = pairs.filter_map(pair).filter(|(_, to)| is_line(to)).collect();
                    }
                    other => ignored.push(format!("sdp-attr={other}")),
                }
            }
            self.rules.push(rules);
        }
    }
}

/// One line's worth: nothing that begins another.
fn is_line(text: &str) -> bool {
    !text.is_empty() && !text.contains(['\r', '\n', '\0'])
}

fn pair(value: &Value) -> Option<(String, String)> {
    let [from, to] = value.as_list()? else { return None };
    Some((from.as_str()?.to_owned(), to.as_str()?.to_owned()))
}
