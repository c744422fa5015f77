//! A stream of all kinds, cut into items.
//!
//! The first byte is how many bytes come at a time. Laws: the items don't depend on that; they stand in the stream where they
//! say, one behind the other; JSON that is an item is read without a panic, and what is put into it comes back out of it.

use sipbox_core::inputs::{Kind, Piece, Place, Splitter, json, sip};

/// An item: its place, and what it is; none is a fault.
type Seen = (Place, Option<(Kind, Vec<u8>)>);

fn cut(data: &[u8], size: usize) -> Vec<Seen> {
    let mut splitter = Splitter::new();
    let mut seen = Vec::new();
    let mut chunks = data.chunks(size);
    loop {
        splitter.compact();
        let chunk = chunks.next();
        match chunk {
            Some(chunk) => splitter.push(chunk),
            None => splitter.end(),
        }
        while let Some(piece) = splitter.next() {
            seen.push(match piece {
                Piece::Item(item) => (item.place, Some((item.kind, item.data.to_vec()))),
                Piece::Fault(place, _) => (place, None),
            });
        }
        if chunk.is_none() {
            return seen;
        }
    }
}

pub fn run(data: &[u8]) {
    let Some((&size, stream)) = data.split_first() else { return };
    let seen = cut(stream, stream.len().max(1));
    assert_eq!(seen, cut(stream, usize::from(size).max(1)), "it depends on how the bytes came");
    let mut end = 0;
    for (index, (place, item)) in seen.iter().enumerate() {
        assert_eq!(place.number, index as u64 + 1);
        let at = place.at as usize;
        assert!(at >= end, "one behind the other");
        let lines = stream[..at].iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(place.line, lines as u64 + 1);
        end = at;
        let Some((kind, item)) = item else { continue };
        end += item.len();
        assert_eq!(&stream[at..end], item, "it stands where it says");
        match kind {
            Kind::Json => {
                let _ = json::mend(item);
                let _ = json::members(item, |_, value| {
                    let mut text = Vec::new();
                    if json::text_of(&item[value], &mut text) {
                        let (mut written, mut again) = (Vec::new(), Vec::new());
                        json::put_text(&text, &mut written);
                        assert!(json::text_of(&written, &mut again));
                        assert_eq!(String::from_utf8_lossy(&text).as_bytes(), again);
                    }
                });
            }
            Kind::Sip => {
                let _ = sip::mend(item);
            }
            Kind::Sdp | Kind::Bencode => {}
        }
    }
}
