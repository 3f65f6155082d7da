//! Trainings that are made up, and a page that follows them in a browser: plain JavaScript that speaks AI Village's wire,
//! comes back by itself, and says what it has missed.
//!
//! ```text
//! train ─ publish_event ─▶ hub ─ /ws ─▶ page.js: progress, loss, gaps     GET / ─▶ page.html, page.css, page.js
//! ```
//!
//! `cargo run -p bowline-smol --features hub --example village`, and then <http://127.0.0.1:8000>. Stop it and start it again
//! while the page is open. Another address is an argument.

use bowline::wire::aivillage::{Event, Json};
use bowline_smol::hub::{Hub, HubSetup, Village};
use core::error::Error;
use core::time::Duration;
use smol::{Timer, future};

/// Everything that the page is.
const PAGES: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("page.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page.js")),
];

/// Trains the same model again and again: `steps` of it, one every `pace`.
async fn train(hub: &Hub<Village>, model: &str, steps: u32, pace: Duration) -> Result<(), Box<dyn Error>> {
    for run in 1_u32.. {
        let session_id = format!("{model}-{run}");
        hub.publish_event(&Event::TrainingStarted {
            session_id: session_id.as_str().into(),
            parameters: Json::parse(r#"{"epochs":10,"lr":0.0003}"#)?,
            estimated_duration: Some((pace * steps).as_secs_f64()),
            model_type: Some(model.into()),
        })?;
        let mut loss = 0.0;
        for step in 1..=steps {
            Timer::after(pace).await;
            let done = f64::from(step) / f64::from(steps);
            // Falls fast, then slowly, and never quite evenly.
            loss = 0.2 + 2.3 * (-4.0 * done).exp() * (1.0 + 0.15 * f64::from(step * run).sin());
            hub.publish_event(&Event::TrainingProgress {
                session_id: session_id.as_str().into(),
                progress: Some(done),
                current_epoch: Some(u64::from(step * 10 / steps)),
                loss: Some(loss),
                metrics: Json::parse(r#"{"lr":0.0003}"#)?,
                estimated_time_remaining: Some((pace * (steps - step)).as_secs_f64()),
            })?;
        }
        hub.publish_event(&Event::TrainingCompleted {
            session_id: session_id.as_str().into(),
            results: Json::parse(&format!(r#"{{"loss":{loss}}}"#))?,
            model_path: Some(format!("models/{session_id}.pt").into()),
            final_metrics: Json::default(),
        })?;
        Timer::after(pace * 10).await;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let mut setup = HubSetup::village(&address)?;
    for (path, kind, page) in PAGES {
        setup = setup.page(path, kind, page)?;
    }
    smol::block_on(async {
        let hub = Hub::start(setup)?;
        println!("http://{}", hub.address());
        let (quick, slow) = (Duration::from_millis(200), Duration::from_millis(700));
        future::try_zip(train(&hub, "cognate", 120, quick), train(&hub, "titan", 80, slow)).await?;
        Ok(())
    })
}
