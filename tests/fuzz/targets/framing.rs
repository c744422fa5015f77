//! A byte stream: the first byte says in what pieces the rest comes.
//!
//! Laws: the pieces do not matter; no message is over the limit; nothing is held back that a limit would have refused.

use sipbox_core::framing::{End, Frame, Framer};
use sipbox_core::limits;
use sipbox_core::sip::{Message, ParseErrorKind};

pub fn run(data: &[u8]) {
    let Some((&first, stream)) = data.split_first() else { return };
    let end = if first & 1 == 0 { End::Server } else { End::Client };
    let (whole, fault) = frames(end, [stream].into_iter());
    for frame in &whole {
        if let Frame::Message(message) = frame {
            assert!(message.len() <= limits::SIP_MESSAGE_BYTES);
            // A stream's message is whole: whatever is wrong with it, it is not too short.
            let kind = Message::parse(message).err().map(|error| error.kind);
            assert!(!matches!(kind, Some(ParseErrorKind::BodyShort | ParseErrorKind::HeadEnd)), "{kind:?}");
        }
    }
    let (pieces, same) = frames(end, stream.chunks(usize::from(first >> 1) + 1));
    assert_eq!((whole, fault), (pieces, same), "the pieces matter");
}

fn frames<'a>(end: End, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, bool) {
    let mut framer = Framer::new(end);
    let mut out = Vec::new();
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next() {
                Ok(Some(frame)) => out.push(frame),
                Ok(None) => break,
                Err(_) => return (out, true),
            }
        }
    }
    (out, false)
}
