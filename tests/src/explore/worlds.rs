//! Which worlds are explored.

use super::setup::Setup;
use super::state::Budget;

const NONE: Budget = Budget::NONE;

/// A message each way and nothing wrong.
const ONE: Setup = Setup {
    name: "one each way",
    sends: [1, 1],
    poison: None,
    go_between: &[200, 413, 502],
    portal: None,
    http: [true; 2],
    bound: 60,
    // Longer than all that can go wrong: what is abandoned was forgotten.
    drain: 900,
    work: 0,
    budget: NONE,
};

/// Two each way: all that outbox and inbox hold.
const TWO: Setup = Setup { name: "two each way", sends: [2, 2], ..ONE };

const ACKS: Budget = Budget { lost_acks: 1, double_acks: 1, ..NONE };
const HTTP: Budget = Budget { cuts: 1, lost_calls: 1, late: 1, double_answers: 1, double_requests: 1, ..NONE };

/// Explored to their ends by `cargo test`.
pub const SMALL: [Setup; 15] = [
    TWO,
    Setup { name: "slow", budget: Budget { slow: 1, ..NONE }, ..ONE },
    Setup { name: "acknowledgements", budget: ACKS, ..ONE },
    Setup { name: "cuts", budget: Budget { cuts: 1, ..NONE }, ..ONE },
    Setup { name: "attempts", budget: Budget { hangs: 1, refusals: 3, ..NONE }, ..ONE },
    Setup { name: "HTTP", sends: [0, 1], budget: HTTP, ..ONE },
    Setup { name: "go-between", sends: [0, 1], budget: Budget { cuts: 1, go_between: 1, ..NONE }, ..ONE },
    Setup { name: "a portal", portal: Some(502), budget: Budget { hangs: 1, refusals: 1, ..NONE }, ..ONE },
    Setup { name: "restarts with memory", budget: Budget { kept: [1, 1], ..NONE }, ..ONE },
    Setup { name: "restarts without", budget: Budget { lost: [1, 1], ..NONE }, ..ONE },
    Setup { name: "poison", sends: [0, 3], poison: Some(0), budget: Budget { poison: 1, ..NONE }, ..ONE },
    Setup { name: "one after the other", sends: [0, 2], work: 4000, ..ONE },
    Setup { name: "a program that is gone", http: [false, true], budget: Budget { mute: 1, ..NONE }, ..ONE },
    Setup { name: "the dialer closes", budget: Budget { cuts: 1, closes: [1, 0], ..NONE }, ..ONE },
    Setup { name: "the acceptor closes", budget: Budget { cuts: 1, closes: [0, 1], ..NONE }, ..ONE },
];

/// Explored by `.ci/deep`, as far as it says.
pub const LARGE: [Setup; 9] = [
    Setup { name: "slow, two each way", budget: Budget { slow: 2, ..ACKS }, ..TWO },
    Setup { name: "cuts, two each way", budget: Budget { cuts: 2, ..ACKS }, ..TWO },
    Setup { name: "restarts, two each way", budget: Budget { kept: [1, 1], lost: [1, 1], ..NONE }, ..TWO },
    Setup { name: "HTTP, two each way", budget: HTTP, ..TWO },
    Setup {
        name: "poison and cuts",
        sends: [1, 3],
        poison: Some(1),
        budget: Budget { poison: 2, cuts: 1, ..NONE },
        ..ONE
    },
    Setup { name: "attempts, two each way", budget: Budget { cuts: 1, hangs: 1, refusals: 3, ..NONE }, ..TWO },
    Setup { name: "one after the other, and cuts", work: 4000, budget: Budget { cuts: 2, ..ACKS }, ..TWO },
    Setup { name: "both close", drain: 30, budget: Budget { cuts: 1, closes: [1, 1], ..NONE }, ..ONE },
    Setup {
        name: "everything at once",
        budget: Budget {
            cuts: 2,
            hangs: 1,
            refusals: 1,
            lost_acks: 1,
            double_acks: 1,
            lost_calls: 1,
            late: 1,
            double_answers: 1,
            double_requests: 1,
            go_between: 1,
            kept: [1, 1],
            lost: [1, 1],
            mute: 1,
            slow: 1,
            poison: 0,
            closes: [0, 0],
        },
        ..TWO
    },
];
