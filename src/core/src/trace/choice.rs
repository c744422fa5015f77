//! Which messages are meant: by Call-ID, From, To, method and status.
//!
//! In: what a user asked for. Out: whether a message fits. Several values of one kind: one of them has to fit; several kinds:
//! each has to. A response has its CSeq's method. Not here: bringing the whole call (`calls`).

use super::Summary;
use std::str::FromStr;

/// What a user asked for; empty lists ask for nothing.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// The whole Call-ID.
    pub call_id: Vec<String>,
    /// A part of the URI in From or To, in any case.
    pub from: Vec<String>,
    pub to: Vec<String>,
    pub method: Vec<String>,
    pub status: Vec<StatusChoice>,
    /// A message that fits stands for itself, and does not bring its call.
    pub only: bool,
}

/// `486`, `4xx` or `400-499`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusChoice {
    pub low: u16,
    pub high: u16,
}

impl FromStr for StatusChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is no status: write 486, 4xx or 400-499");
        let number = |digits: &str| {
            digits.parse::<u16>().ok().filter(|n| digits.len() == 3 && (100..700).contains(n)).ok_or_else(bad)
        };
        if let Some(class) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
            let low = number(&format!("{class}00"))?;
            return Ok(StatusChoice { low, high: low + 99 });
        }
        match text.split_once('-') {
            Some((low, high)) => {
                let choice = StatusChoice { low: number(low)?, high: number(high)? };
                if choice.low > choice.high { Err(bad()) } else { Ok(choice) }
            }
            None => number(text).map(|n| StatusChoice { low: n, high: n }),
        }
    }
}

impl Choice {
    /// Whether everything is meant.
    pub fn is_all(&self) -> bool {
        self.call_id.is_empty()
            && self.from.is_empty()
            && self.to.is_empty()
            && self.method.is_empty()
            && self.status.is_empty()
    }

    pub fn fits(&self, message: &Summary) -> bool {
        one_of(&self.call_id, |id| *id == message.call_id)
            && one_of(&self.from, |part| contains(&message.from, part))
            && one_of(&self.to, |part| contains(&message.to, part))
            && one_of(&self.method, |method| method.eq_ignore_ascii_case(&message.method))
            && one_of(&self.status, |status| (status.low..=status.high).contains(&message.status))
    }
}

fn one_of<T>(list: &[T], fits: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(fits)
}

fn contains(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        assert_eq!("486".parse(), Ok(StatusChoice { low: 486, high: 486 }));
        assert_eq!("4xx".parse(), Ok(StatusChoice { low: 400, high: 499 }));
        assert_eq!("300-699".parse(), Ok(StatusChoice { low: 300, high: 699 }));
        for bad in ["", "xx", "7xx", "48", "4860", "500-400", "1-", "ok"] {
            assert!(bad.parse::<StatusChoice>().is_err(), "{bad}");
        }
    }

    #[test]
    fn kinds_all_values_any() {
        let busy = Summary {
            status: 486,
            method: "INVITE".into(),
            call_id: "a@b".into(),
            from: "sip:Alice@example.com".into(),
            to: "sip:bob@example.com".into(),
            ..Summary::default()
        };
        let choice = Choice {
            from: vec!["alice@".into()],
            method: vec!["invite".into(), "BYE".into()],
            status: vec!["486".parse().unwrap()],
            ..Choice::default()
        };
        assert!(choice.fits(&busy));
        assert!(!choice.fits(&Summary { status: 200, ..busy.clone() }));
        assert!(!choice.fits(&Summary { from: "sip:carol@example.com".into(), ..busy.clone() }));
        assert!(!Choice { call_id: vec!["a@".into()], ..Choice::default() }.fits(&busy));
        assert!(Choice::default().is_all() && Choice::default().fits(&busy));
    }
}
