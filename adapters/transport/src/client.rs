//! What a client of a native hub is told before it starts: where the hub is, who it is, and what it wants to see.
//!
//! ```text
//! Setup::client(url, cid) ── auth, topic, unordered ──▶ Setup<Native>
//!   ws://hub:9000 ─┬▶ ws://hub:9000/bowline/1/socket
//!                  └▶ http://hub:9000/bowline/1        hello, messages, poll
//! ```

use crate::http::Target;
use crate::setup::{Setup, SetupError};
use crate::wire::Native;
use bowline::NATIVE;
use bowline::wire::native::{MAX_AUTH, MAX_NAME, PATH, Since};

/// The last segment of the WebSocket's path; beside it are those of the requests.
const SOCKET: &str = "/socket";

impl Setup<Native> {
    /// A client of a native hub, of this name: it dials `url` (`ws://host:port`, `wss://…`, `http://…` or a bare `host:port`;
    /// without a path it is `/bowline/1/socket`), and where there is no WebSocket it posts and polls beside that. A path that
    /// does not end in `/socket` has nothing beside it, until there is a [`fallback`](Self::fallback).
    ///
    /// Its name is known to the hub's application, and is 1 to 64 characters from `!` to `~`. Of one name there should be
    /// one client at a time: a newer one ends the older. Give it an [`identity`](Self::identity) and an
    /// [`epoch`](Self::epoch) that grows with every start, and the hub knows its messages from those of its former self.
    ///
    /// ```
    /// use bowline::wire::native::Since;
    /// use bowline_transport::Setup;
    /// let client = Setup::client("ws://hub:9000", "sensor-7")?
    ///     .auth("secret")?
    ///     .topic("training.*", Some(Since::Oldest))?
    ///     .identity("sensor-7")
    ///     .epoch(3);
    /// # let _ = client;
    /// # Ok::<(), bowline_transport::SetupError>(())
    /// ```
    ///
    /// # Errors
    /// The URL or the name makes no sense.
    pub fn client(url: &str, cid: &str) -> Result<Self, SetupError> {
        if !(1..=MAX_NAME).contains(&cid.len()) || !cid.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SetupError::Settings(format!("client {cid:?}: 1 to 64 characters from `!` to `~`")));
        }
        let url = Target::websocket(url, PATH)?;
        let spelled = url.to_string();
        let beside = spelled.split('?').next().unwrap_or_default().strip_suffix(SOCKET);
        let fallback = beside.map(|place| Target::http(&place.replacen("ws", "http", 1))).transpose()?;
        let mut setup = Self::with(NATIVE, Native::client(cid));
        setup.config.route.http = fallback.is_some();
        setup.url = Some(url);
        setup.fallback = fallback;
        Ok(setup)
    }

    /// What the hub's application sees when it is asked whether to let this client in.
    ///
    /// # Errors
    /// It is longer than 4 KiB.
    pub fn auth(mut self, auth: impl Into<String>) -> Result<Self, SetupError> {
        let auth = auth.into();
        if auth.len() > MAX_AUTH {
            return Err(SetupError::Settings(format!("auth of {} bytes: {MAX_AUTH} at most", auth.len())));
        }
        self.wire.show(auth);
        Ok(self)
    }

    /// Subscribes to the topics of this filter, on every connection. `since` is for the first one; of each topic later ones
    /// begin where the last ended, and its events come in order, once each. That is kept for 128 topics; of further ones,
    /// which only a wildcard can bring, what the hub sends twice comes twice.
    ///
    /// # Errors
    /// The filter has none or more than 64 bytes, or there are more than 64.
    pub fn topic(mut self, filter: &str, since: Option<Since>) -> Result<Self, SetupError> {
        if self.wire.subscribe(filter, since).is_some() {
            Ok(self)
        } else {
            Err(SetupError::Settings(format!("topic {filter:?}: a filter of 1 to 64 bytes, and 64 filters at most")))
        }
    }

    /// Takes the hub's messages as they come: none waits for an earlier one (S9).
    #[must_use]
    pub fn unordered(self) -> Self {
        self.configure(|config| {
            if let Some(native) = &mut config.native {
                native.order = false;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_client_dials_and_posts() {
        for (url, dials, posts) in [
            ("hub:9000", "ws://hub:9000/bowline/1/socket", Some("http://hub:9000/bowline/1")),
            ("http://[::1]:85", "ws://[::1]:85/bowline/1/socket", Some("http://[::1]:85/bowline/1")),
            ("ws://hub/x/socket?a=1", "ws://hub/x/socket?a=1", Some("http://hub/x")),
            ("ws://hub/x", "ws://hub/x", None),
        ] {
            let setup = Setup::client(url, "c").unwrap();
            assert_eq!(setup.url.unwrap().to_string(), dials);
            assert_eq!(setup.fallback.as_ref().map(ToString::to_string).as_deref(), posts, "{url}");
            assert_eq!(setup.config.route.http, posts.is_some());
            assert!(setup.config.check().is_ok());
        }
    }

    #[test]
    fn names_filters_and_auth_are_bounded() {
        for cid in ["", "a b", "é", &"c".repeat(65)] {
            assert!(Setup::client("hub", cid).is_err(), "{cid}");
        }
        let mut setup = Setup::client("hub", &"c".repeat(64)).unwrap();
        assert!(setup.clone().auth("a".repeat(4097)).is_err() && setup.clone().auth("a".repeat(4096)).is_ok());
        assert!(setup.clone().topic("", None).is_err() && setup.clone().topic(&"x".repeat(65), None).is_err());
        for n in 0..64 {
            setup = setup.topic(&format!("room.{n}"), None).unwrap();
        }
        assert!(setup.clone().topic("one.more", None).is_err());
        assert!(setup.clone().topic("room.1", Some(Since::Oldest)).is_ok(), "the same again");
        assert!(setup.unordered().config.native.is_some_and(|native| !native.order));
    }
}
