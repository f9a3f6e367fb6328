//! Distributes workers among subscriptions that ask for more than there are places.

/// Shares `places` among subscriptions, given how many workers each asks for: all get one before any gets a second,
/// and so on, and those named first have precedence.
pub fn fair_shares(wanted: &[usize], places: usize) -> Vec<usize> {
    let mut shares = vec![0; wanted.len()];
    let mut left = places;
    let most = wanted.iter().copied().max().unwrap_or(0);
    for round in 0..most {
        for (share, wanted) in shares.iter_mut().zip(wanted) {
            if *wanted > round && left > 0 {
                *share += 1;
                left -= 1;
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_all_where_there_is_room() {
        assert_eq!(fair_shares(&[1, 32, 3], 36), [1, 32, 3]);
        assert_eq!(fair_shares(&[], 5), [0; 0]);
    }

    #[test]
    fn everybody_gets_one_before_anybody_gets_a_second() {
        assert_eq!(fair_shares(&[32, 1, 2], 3), [1, 1, 1]);
        assert_eq!(fair_shares(&[32, 1, 2], 4), [2, 1, 1]);
        assert_eq!(fair_shares(&[32, 1, 2], 5), [2, 1, 2]);
        assert_eq!(fair_shares(&[32, 1, 2], 9), [6, 1, 2]);
    }

    #[test]
    fn the_first_have_precedence_where_not_everybody_gets_one() {
        assert_eq!(fair_shares(&[2, 2, 2], 2), [1, 1, 0]);
        assert_eq!(fair_shares(&[2, 2], 0), [0, 0]);
    }
}
