//! Every situation that two shipped plain sessions can come into: small worlds to their ends here, large ones by `.ci/deep`.

use bowline_tests::explore::{LARGE, Move, Report, SMALL, Setup, explore};

/// How many transitions of a large world are tried at most: `BOWLINE_EXPLORE=1000000`.
fn most() -> u64 {
    std::env::var("BOWLINE_EXPLORE").map_or(100_000_000, |most| most.parse().expect("a number of transitions"))
}

/// Explores worlds; every kind of move occurs that any of them allows.
fn explored(worlds: &[Setup], most: u64) -> Vec<Report> {
    let mut kinds = [0; Move::KINDS];
    let mut reports = Vec::new();
    let only = std::env::var("ONLY").ok();
    for world in worlds.iter().filter(|world| only.as_ref().is_none_or(|only| only == world.name)) {
        let begun = std::time::Instant::now();
        let report = explore(world, most);
        println!("{report}  in {:.1?}", begun.elapsed());
        for (all, one) in kinds.iter_mut().zip(report.kinds) {
            *all += one;
        }
        reports.push(report);
    }
    println!("{kinds:?}");
    assert!(reports.iter().all(|report| report.broken.is_none()), "a promise is broken: see above");
    assert!(only.is_some() || kinds.iter().all(|times| *times > 0), "every kind of move occurs: {kinds:?}");
    reports
}

#[test]
fn g1_g2_g3_g6_hold_in_every_situation_of_small_worlds_and_everything_ends() {
    let reports = explored(&SMALL, 1_000_000);
    assert!(reports.iter().all(|report| report.whole), "a small world is explored to its end");
}

#[test]
#[ignore = "takes minutes to hours: .ci/deep"]
fn g1_g2_g3_g6_hold_in_large_worlds_and_everything_ends() {
    let _ = explored(&LARGE, most());
}
