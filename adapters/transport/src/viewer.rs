//! What a viewer of AI Village's is told before it starts: where to look, and at what.

use crate::http::Target;
use crate::setup::{Setup, SetupError};
use crate::wire::Village;
use bowline::VILLAGE_VIEWER;
use bowline::wire::aivillage::{PATH, PATH_P2P_FOG, Since, TOPICS, TOPICS_P2P_FOG};

impl Setup<Village> {
    /// A viewer of AI Village: it dials the hub at `url` (`ws://host:port`, `wss://…`, `http://…` or a bare `host:port`;
    /// without a path it is `/ws`). It follows the topics of its path: training, models and system at `/ws`, p2p and fog at
    /// `/ws/p2p-fog`.
    ///
    /// ```
    /// use bowline::wire::aivillage::Since;
    /// use bowline_transport::Setup;
    /// let viewer = Setup::viewer("ws://village:8000")?.topic("training", Since::Oldest)?.topic("rooms.7", Since::Now)?;
    /// # let _ = viewer;
    /// # Ok::<(), bowline_transport::SetupError>(())
    /// ```
    ///
    /// # Errors
    /// The URL makes no sense.
    pub fn viewer(url: &str) -> Result<Self, SetupError> {
        let mut setup = Self::with(VILLAGE_VIEWER, Village::viewer());
        let url = Target::websocket(url, PATH)?;
        let spelled = url.to_string();
        let path = spelled.split('?').next().unwrap_or_default();
        let own: &[&str] = if path.ends_with(PATH_P2P_FOG) {
            &TOPICS_P2P_FOG
        } else if path.ends_with(PATH) {
            &TOPICS
        } else {
            &[]
        };
        setup.url = Some(url);
        own.iter().try_fold(setup, |setup, topic| setup.topic(topic, Since::Now))
    }

    /// Subscribes to this topic, on every connection. `since` says from where on, until something of it was received; from
    /// then on each connection goes on where the last ended, if the hub keeps positions.
    ///
    /// # Errors
    /// The name has none or more than 64 bytes, or there are more than 64 topics.
    pub fn topic(mut self, name: &str, since: Since) -> Result<Self, SetupError> {
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
        assert!(
            setup.clone().topic("", Since::Now).is_err() && setup.clone().topic(&"x".repeat(65), Since::Now).is_err()
        );
        for n in TOPICS.len()..64 {
            setup = setup.topic(&format!("room.{n}"), Since::Now).unwrap();
        }
        let error = setup.clone().topic("one.more", Since::Now).unwrap_err();
        assert!(error.to_string().contains("one.more"), "{error}");
        assert!(setup.topic("room.5", Since::Oldest).is_ok(), "the same again");
    }
}
