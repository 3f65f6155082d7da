//! How many came back at the same time.

use core::time::Duration;
use std::time::Instant;

/// What counts as the same time.
const SPAN: Duration = Duration::from_millis(100);

/// The most of them in any 100 ms. They are in order.
pub(super) fn busiest(times: &[Instant]) -> usize {
    let mut first = times.iter().peekable();
    let mut inside = 0_usize;
    let mut most = 0;
    for time in times {
        inside += 1;
        while first.next_if(|first| time.duration_since(**first) >= SPAN).is_some() {
            inside -= 1;
        }
        most = most.max(inside);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_span_may_begin_anywhere() {
        let start = Instant::now();
        let at = |millis: &[u64]| millis.iter().map(|n| start + Duration::from_millis(*n)).collect::<Vec<_>>();
        assert_eq!(busiest(&[]), 0);
        assert_eq!(busiest(&at(&[0, 100, 200])), 1);
        assert_eq!(busiest(&at(&[0, 90, 120, 180, 189, 400, 401])), 4);
    }
}
