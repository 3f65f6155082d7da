//! The scenario of the firmware image under the debug assertions of an ordinary test.

#[path = "../firmware/src/scenario.rs"]
mod scenario;

/// Step by step: F1 and F2 (a message passed over on the connection goes by HTTP when the grace ends), F3, I1, I4, S6,
/// R7, L1, P3; then at random: every accepted message ends once (G1), no deadline lies in the past (G9).
#[test]
fn the_firmwares_scenario_passes_with_debug_assertions() {
    assert!(scenario::run(|text| print!("{}", String::from_utf8_lossy(text))));
}
