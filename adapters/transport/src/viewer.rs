//! What a viewer of AI Village's is told before it starts: where to look, and at what.

use crate::http::Target;
use crate::setup::{Setup, SetupError};
use crate::wire::Village;
use bowline::VILLAGE_VIEWER;
use bowline::wire::aivillage::{PATH, Since};

impl Setup<Village> {
    /// A viewer of AI Village: it dials the hub at `url` (`ws://host:port`, `wss://…`, `http://…` or a bare `host:port`;
    /// without a path it is `/ws`, where a hub tells of training, models and itself; `/ws/p2p-fog` is the other).
    ///
    /// ```
    /// use bowline::wire::aivillage::Since;
    /// use bowline_transport::Setup;
    /// let viewer = Setup::viewer("ws://village:8000")?.topic("training", Some(Since::Oldest))?.topic("rooms.7", None)?;
    /// # let _ = viewer;
    /// # Ok::<(), bowline_transport::SetupError>(())
    /// ```
    ///
    /// # Errors
    /// The URL makes no sense.
    pub fn viewer(url: &str) -> Result<Self, SetupError> {
        let mut setup = Self::with(VILLAGE_VIEWER, Village::viewer());
        setup.url = Some(Target::websocket(url, PATH)?);
        Ok(setup)
    }

    /// Subscribes to this topic, on every connection. `since` is for the first one: what history holds from there on, or
    /// nothing of it. Later ones begin where the last ended, if the hub keeps positions.
    ///
    /// # Errors
    /// The name has none or more than 64 bytes, or there are more than 64 topics.
    pub fn topic(mut self, name: &str, since: Option<Since>) -> Result<Self, SetupError> {
        if self.wire.subscribe(name, since) {
            Ok(self)
        } else {
            Err(SetupError::Settings(format!("topic {name:?}: a name of 1 to 64 bytes, and 64 topics at most")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_viewer_dials() {
        for (url, dials) in [
            ("village:8000", "ws://village:8000/ws"),
            ("ws://village.example/ws/p2p-fog", "ws://village.example/ws/p2p-fog"),
            ("http://[::1]:8085", "ws://[::1]:8085/ws"),
        ] {
            let setup = Setup::viewer(url).unwrap();
            assert_eq!(setup.url.unwrap().to_string(), dials);
            assert_eq!((setup.config, setup.fallback), (VILLAGE_VIEWER, None));
        }
    }

    #[test]
    fn topics_have_bounded_names_and_numbers() {
        let mut setup = Setup::viewer("village").unwrap();
        assert!(setup.clone().topic("", None).is_err() && setup.clone().topic(&"x".repeat(65), None).is_err());
        for n in 0..64 {
            setup = setup.topic(&format!("room.{n}"), None).unwrap();
        }
        let error = setup.clone().topic("one.more", None).unwrap_err();
        assert!(error.to_string().contains("one.more"), "{error}");
        assert!(setup.topic("room.1", Some(Since::Oldest)).is_ok(), "the same again");
    }
}
