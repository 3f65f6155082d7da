//! The scenario of the firmware image under the debug assertions of an ordinary test.

#[path = "../firmware/src/scenario.rs"]
mod scenario;

/// F1: a message that was passed over on the connection goes by HTTP when the grace ends. G1, G9: at random, every
/// accepted message ends once and no deadline lies in the past.
#[test]
fn f1_g1_g9_the_scenario_passes_with_debug_assertions() {
    assert!(scenario::run(|text| print!("{}", String::from_utf8_lossy(text))));
}
