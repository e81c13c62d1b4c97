//! The URL at which a fan-out of events publishes.

use std::time::Duration;

use super::args::{ShapeName, StressArgs};
use super::input;
use super::target::{Scheme, Target};

/// Returns the URL of a fan-out of events: that of `--publish`, or the one of slabd that belongs to
/// the target. Its address and its password are chosen as those of the target.
pub fn target(
    args: &StressArgs,
    shape: ShapeName,
    target: &Target,
    timeout: Duration,
) -> Result<Option<Target>, String> {
    if (shape, target.scheme) != (ShapeName::Fanout, Scheme::Events) {
        return Ok(None);
    }
    if let Some(url) = &args.publish {
        let mut found = Target::parse(url).map_err(|why| format!("--publish: {why}"))?;
        if found.scheme != Scheme::Http {
            return Err(format!(
                "--publish: {found} takes no POST; expected http://HOST:PORT/PATH, such as \
                 http://{}/publish/news",
                found.host
            ));
        }
        // The password of the target is for this URL, too, if the URL has a user and no password.
        if found.user.is_some() && found.password.is_none() {
            input::add_password(&mut found, args.password_file.as_deref())?;
        }
        found.choose(timeout, |_| true);
        return Ok(Some(found));
    }
    let channel = target.path.strip_prefix("/events/").ok_or_else(|| {
        format!(
            "fanout needs a URL to publish at, and {target} does not name a channel; expected \
             --publish http://{0}/PATH, or a target such as sse+http://{0}/events/news",
            target.host
        )
    })?;
    let path = format!("/publish/{channel}");
    Ok(Some(Target { scheme: Scheme::Http, path, ..target.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Secret;

    fn publish(url: &str, password_file: Option<&std::path::Path>) -> Result<Target, String> {
        let args = StressArgs {
            publish: Some(url.into()),
            password_file: password_file.map(Into::into),
            ..StressArgs::default()
        };
        let events = Target::parse("sse+http://me@127.0.0.1:9/a").unwrap();
        let found = target(&args, ShapeName::Fanout, &events, Duration::from_secs(1));
        found.map(|found| found.expect("a fan-out of events publishes"))
    }

    #[test]
    fn the_password_file_is_for_a_publish_url_with_a_user_and_no_password() {
        let file = std::env::temp_dir().join(format!("slabd-publish-{}", std::process::id()));
        std::fs::write(&file, "s3\n").unwrap();
        let password = |url: &str| publish(url, Some(&file)).map(|target| target.password);
        let secret = |text: &str| Ok(Some(Secret(text.as_bytes().into())));
        assert_eq!(password("http://me@127.0.0.1:9/x"), secret("s3"));
        assert_eq!(password("http://me:own@127.0.0.1:9/x"), secret("own"));
        assert_eq!(password("http://127.0.0.1:9/x"), Ok(None));
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn the_addresses_of_a_publish_url_are_tried_in_turn() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let found = publish(&format!("http://localhost:{}/x", open.port()), None).unwrap();
        assert_eq!(found.address, open);
    }
}
