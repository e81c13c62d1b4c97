//! All services, by their names in `--listen`. Add yours here.

use crate::hub::Hub;
use crate::service::{Constructor, discard, echo, hello};

pub const SERVICES: &[(&str, Constructor)] = &[
    ("hello", |_| Box::new(hello::Hello)),
    ("echo", |_| Box::new(echo::Echo)),
    ("discard", |_| Box::new(discard::Discard)),
    ("hub", |options| Box::new(Hub::new(options))),
];
