//! What outlives the transactions of a writer.

use std::time::Duration;

use super::groups::BlockedGroups;
use super::refusals::Refusals;
use super::rejections;
use super::source::Source;
use super::target::Target;
use crate::stat::QueueStat;

/// What a writer of a later transaction of the same process needs to go on.
#[derive(Clone, Default)]
pub struct WriterState {
    /// Groups of a FIFO queue that wait for a message.
    pub(super) blocked: BlockedGroups,
    /// Rows that the table has refused since it last took one.
    pub(super) refusals: Refusals,
    /// The UTC day, in days since 2000-01-01, on which it was last recorded that the queue feeds the ledger.
    pub(super) recorded_on: Option<i32>,
}

impl WriterState {
    /// What others, or earlier calls, have recorded of the queue. Must be read before anything is received: it decides
    /// how many messages a receive may ask for.
    pub fn recall(source: &Source, target: &Target) -> WriterState {
        let mut state = WriterState::default();
        if source.queue().url().is_fifo() {
            let url = source.queue().url().as_str();
            for awaited in rejections::awaited(&target.rejected, url) {
                state
                    .blocked
                    .block_until(awaited.group, &awaited.message_id, awaited.hidden_until);
            }
            state.receive_singly_while_blocked(source.stat(), source.visibility());
        }
        state
    }

    /// Whether groups wait for messages that were rejected.
    pub fn has_blocked_groups(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// While a group is blocked, one message at a time is received: what is behind the rejected message would be
    /// received with it, and their receive counts would rise with it until they went to the dead-letter queue too.
    pub fn receive_singly_while_blocked(&self, stat: &QueueStat, visibility: Duration) {
        stat.receive_singly(!self.blocked.is_empty(), visibility);
    }
}
