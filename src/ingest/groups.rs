//! Groups of a FIFO queue in which a message was rejected and stays: what follows it must wait for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Blocked groups, each until SQS hands out the rejected message again, before all others of its group.
#[derive(Clone, Default)]
pub struct BlockedGroups {
    until: HashMap<Arc<str>, Instant>,
}

impl BlockedGroups {
    /// Blocks `group` for the time that the rejected message stays invisible.
    pub fn block(&mut self, group: Arc<str>, visibility_timeout: Duration) {
        self.until
            .insert(group, Instant::now() + visibility_timeout);
    }

    /// Whether `group` is blocked.
    pub fn contains(&self, group: &Arc<str>) -> bool {
        self.until.contains_key(group)
    }

    /// Forgets those whose time is over.
    pub fn expire(&mut self) {
        let now = Instant::now();
        self.until.retain(|_, until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_blocked_until_its_time_is_over() {
        let mut blocked = BlockedGroups::default();
        blocked.block("long".into(), Duration::from_secs(60));
        blocked.block("over".into(), Duration::ZERO);
        blocked.expire();
        assert!(blocked.contains(&"long".into()));
        assert!(!blocked.contains(&"over".into()));
    }
}
