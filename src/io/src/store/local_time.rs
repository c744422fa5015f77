//! The host's local time, in which Kamailio keeps times in MySQL.
//!
//! DATETIME has no zone: what it means is agreed on by all who use the table, which is why every host of a deployment must
//! have the same one (`TZ`, `/etc/localtime`). It is converted here, in our process; what zone the database server has does
//! not matter. In: seconds since the epoch. Out: date and time, and back.
//!
//! When clocks go back, an hour comes twice, and one DATETIME stands for two times. Read back, it counts as the later one: a
//! binding then lives for up to an hour too long, once a year, where the other choice would drop every phone for an hour.
//! When clocks go forward nothing is lost. Whoever wants neither sets `TZ=UTC` for all of the deployment.

use std::mem::MaybeUninit;

/// A date and time without its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Local {
    pub year: u16,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

pub(super) fn local(unix: i64) -> Option<Local> {
    let broken = broken_down(unix)?;
    Some(Local {
        year: (broken.tm_year + 1900).try_into().ok()?,
        month: (broken.tm_mon + 1).try_into().ok()?,
        day: broken.tm_mday.try_into().ok()?,
        hour: broken.tm_hour.try_into().ok()?,
        minute: broken.tm_min.try_into().ok()?,
        // 60 only in zones that count leap seconds; no DATETIME has it.
        second: broken.tm_sec.min(59).try_into().ok()?,
    })
}

/// None where there is no such date (MySQL has `0000-00-00`).
pub(super) fn unix(at: Local) -> Option<i64> {
    if at.year < 1900 || at.month == 0 || at.day == 0 {
        return None;
    }
    // Both readings, with and without daylight saving; one that does not read back as asked is none.
    let readings = [0, 1].map(|saving| {
        let time = made(at, saving)?;
        (local(time) == Some(at)).then_some(time)
    });
    match readings {
        [None, None] => made(at, -1),
        [a, b] => a.max(b),
    }
}

fn broken_down(unix: i64) -> Option<libc::tm> {
    let mut broken = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; `tm` is a plain structure for which zeros are a value.
    let done = unsafe { !libc::localtime_r(&unix, broken.as_mut_ptr()).is_null() };
    // SAFETY: initialised above, with zeros at least.
    done.then(|| unsafe { broken.assume_init() })
}

fn made(at: Local, saving: i32) -> Option<i64> {
    // SAFETY: `tm` is a plain structure for which zeros are a value.
    let mut broken: libc::tm = unsafe { MaybeUninit::zeroed().assume_init() };
    broken.tm_year = i32::from(at.year) - 1900;
    broken.tm_mon = i32::from(at.month) - 1;
    broken.tm_mday = i32::from(at.day);
    broken.tm_hour = i32::from(at.hour);
    broken.tm_min = i32::from(at.minute);
    broken.tm_sec = i32::from(at.second);
    broken.tm_isdst = saving;
    // SAFETY: the pointer is valid for the call.
    let time = unsafe { libc::mktime(&mut broken) };
    // -1 is also the last second of 1969, before which nothing here has a meaning.
    (time != -1).then_some(time)
}
