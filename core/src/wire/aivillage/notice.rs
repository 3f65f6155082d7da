//! What a `custom` frame of the hub's says about a subscription: the answers that the original has in its code, and ours.

use alloc::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::MAX_NAME;
use super::event::Json;
use crate::wire::text;

/// What a hub says about subscriptions.
///
/// ```
/// use bowline::wire::aivillage::{Event, Notice};
/// let gap = Notice::Gap { topic: "training".into(), epoch: 7, from: 13, to: 20 };
/// let data = Event::Notice(gap.clone()).data();
/// assert_eq!(data, r#"{"type":"gap","topic":"training","epoch":7,"from":13,"to":20}"#);
/// assert_eq!(Event::read("custom", &data), Ok(Event::Notice(gap)));
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Notice<'a> {
    /// The answer to `subscribe`.
    SubscriptionResponse {
        /// As it was asked for.
        topic: Cow<'a, str>,
        /// False: there is no such topic, or there are too many.
        success: bool,
    },
    /// The answer to `unsubscribe`.
    UnsubscriptionResponse {
        /// As it was asked for.
        topic: Cow<'a, str>,
        /// False: it was not subscribed.
        success: bool,
    },
    /// Ours: events of this topic are lost to this subscriber, for history does not hold them any more. What comes next is
    /// `to + 1`.
    Gap {
        /// Of which.
        topic: Cow<'a, str>,
        /// The run that now counts; if it is another than the subscriber's, the rest of that run is lost, too.
        epoch: u32,
        /// The first that is lost.
        from: u64,
        /// The last that is lost; before `from` where only the run has changed.
        to: u64,
    },
}

impl<'a> Notice<'a> {
    /// What stands in the data of a `custom` frame. `None`: whatever else has a type in its data is the application's affair.
    pub(super) fn read(data: Json<'a>) -> Option<Self> {
        let fields: Fields<'a> = serde_json::from_str(data.as_str()).ok()?;
        let kind = text(fields.kind?, MAX_NAME)?;
        let topic = text(fields.topic?, MAX_NAME)?;
        let success = |raw: Option<&RawValue>| raw?.get().parse().ok();
        let offset = |raw: Option<&RawValue>| raw?.get().parse().ok();
        match &*kind {
            "subscription_response" => Some(Self::SubscriptionResponse { topic, success: success(fields.success)? }),
            "unsubscription_response" => {
                Some(Self::UnsubscriptionResponse { topic, success: success(fields.success)? })
            }
            "gap" => {
                let epoch = fields.epoch?.get().parse().ok()?;
                Some(Self::Gap { topic, epoch, from: offset(fields.from)?, to: offset(fields.to)? })
            }
            _ => None,
        }
    }
}

/// Every key of a notice.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    topic: Option<&'a RawValue>,
    #[serde(borrow)]
    success: Option<&'a RawValue>,
    #[serde(borrow)]
    epoch: Option<&'a RawValue>,
    #[serde(borrow)]
    from: Option<&'a RawValue>,
    #[serde(borrow)]
    to: Option<&'a RawValue>,
}
