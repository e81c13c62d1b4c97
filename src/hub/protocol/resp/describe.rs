//! COMMAND and its subcommands, which reply from the table of commands.

use super::rows::{CommandRow, FLAG_NAMES};
use super::words::{is, word};
use super::{Call, help};
use crate::codec::resp::{self, Command};
use crate::hub::Shared;

pub fn describe(
    table: &'static [CommandRow],
    shared: &mut Shared,
    words: Command<'_>,
    call: &mut Call<'_, '_>,
) {
    let named = |name: &[u8]| table.iter().find(|row| is(name, row.name));
    let protocol = shared.protocol(call.session);
    let out = call.out();
    let show = |out: &mut Vec<u8>, row: &CommandRow| {
        resp::array(out, 6);
        resp::bulk(out, row.name.as_bytes());
        resp::integer(out, i64::from(row.arity));
        let flags = FLAG_NAMES.iter().filter(|(flag, _)| row.flags & flag != 0);
        resp::array(out, flags.clone().count());
        flags.for_each(|(_, name)| resp::simple(out, name));
        // First key, last key and step: no command has keys.
        (0..3).for_each(|_| resp::integer(out, 0));
    };
    match word(words, 1) {
        name if words.len() == 1 || (is(name, "info") && words.len() == 2) => {
            resp::array(out, table.len());
            table.iter().for_each(|row| show(out, row));
        }
        name if is(name, "count") && words.len() == 2 => resp::integer(out, table.len() as i64),
        // Redis's filters of COMMAND LIST are not supported.
        name if is(name, "list") && words.len() > 2 => resp::error(out, b"ERR syntax error"),
        name if is(name, "list") => {
            resp::array(out, table.len());
            table.iter().for_each(|row| resp::bulk(out, row.name.as_bytes()));
        }
        name if is(name, "info") => {
            resp::array(out, words.len() - 2);
            for name in words.iter().skip(2) {
                match named(name) {
                    Some(row) => show(out, row),
                    None => resp::null(out, protocol),
                }
            }
        }
        name if is(name, "getkeys") => match named(word(words, 2)) {
            Some(_) => resp::error(out, b"ERR The command has no key arguments"),
            None => resp::error(out, b"ERR Invalid command specified"),
        },
        name if is(name, "docs") => {
            let asked: Vec<&CommandRow> = match words.len() {
                2 => table.iter().collect(),
                _ => words.iter().skip(2).filter_map(named).collect(),
            };
            resp::map(out, asked.len(), protocol);
            for row in asked {
                resp::bulk(out, row.name.as_bytes());
                resp::map(out, 1, protocol);
                resp::bulk(out, b"summary");
                resp::bulk(out, row.summary.as_bytes());
            }
        }
        _ => help::other_subcommand("command", words, out),
    }
}
