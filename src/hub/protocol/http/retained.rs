//! The kept messages of a channel, as pages of JSON.
//!
//! A page continues behind the cursor of the page before. A value that changes meanwhile is met
//! again on a later page, and one that is removed is not met again.

use std::io::Write;

use super::error_body;
use super::exchange::{HttpExchange, JSON, NO_STORE};
use crate::hub::json;
use crate::hub::protocol::progress::MessageProgress;
use crate::limits::{RETAINED_PAGE_BYTES, RETAINED_PAGE_STEPS};

/// Answers with the kept messages of a channel behind a cursor. A page takes time, so it may have
/// to wait for the next turn.
pub fn serve(exchange: &mut HttpExchange<'_, '_>, channel: &[u8], after: u64) -> MessageProgress {
    if exchange.shared.must_wait_to_search(exchange.session) {
        return MessageProgress::Waits;
    }
    exchange.shared.asked += RETAINED_PAGE_STEPS;
    let retained = &exchange.shared.retained;
    let Some(log) = retained.find(channel) else {
        let text = "the messages of this channel are not retained; start the server with --retain";
        exchange.answer(404, JSON, &error_body(text), &[]);
        return MessageProgress::Taken;
    };
    let last = retained.last(log);
    if after > last {
        let text = "there is no such cursor; begin again without after";
        exchange.answer(400, JSON, &error_body(text), &[]);
        return MessageProgress::Taken;
    }
    let mut body = b"{".to_vec();
    json::name(&mut body, "channel", channel);
    body.extend_from_slice(b",\"values\":[");
    let (start, mut cursor) = (body.len(), after);
    while cursor < last && body.len() < start + RETAINED_PAGE_BYTES {
        (cursor, _) = retained.read(log, cursor, |record| {
            if body.len() >= start + RETAINED_PAGE_BYTES {
                return false;
            }
            if !record.is_grave {
                if body.len() > start {
                    body.push(b',');
                }
                json::value_or_bytes(&mut body, record.payload);
            }
            true
        });
    }
    body.push(b']');
    if cursor < last {
        // Writing to a Vec cannot fail.
        let _ = write!(body, ",\"next\":\"{cursor}\"");
    }
    body.extend_from_slice(b"}\n");
    exchange.answer(200, JSON, &body, NO_STORE);
    MessageProgress::Taken
}
