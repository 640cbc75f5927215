//! The timeline of a request for the recorder.

use std::time::{Duration, Instant};

use super::exchange::Exchange;
use crate::listener::connection::Connection;
use crate::observe::Record;
use crate::observe::recorder::{Kept, Timeline, TimelineAttempt, TimelineConnection};

impl Exchange {
    /// The timeline of this request, whose access log line is `record`.
    pub(super) fn timeline(&self, listener: &str, record: &Record<'_>, kept: Kept) -> Timeline {
        Timeline {
            queued_ms: self.times.queued.map(millis),
            received: self.body_received(),
            connection: self.connection.as_deref().map(|connection| connection_at(connection, self.began())),
            attempts: self.timeline_attempts(record.cause_text()),
            ..Timeline::of(listener, record, kept)
        }
    }

    fn timeline_attempts(&self, cause: &'static str) -> Vec<TimelineAttempt> {
        let since_arrival = |moment: Instant| millis(moment.saturating_duration_since(self.began()));
        let last = (self.selected_at, self.times.connect, self.attempt_ended);
        let earlier = self.earlier_attempts.iter().map(|earlier| (earlier.chosen, earlier.connect, earlier.ended));
        let moments = earlier.chain([last]);
        self.attempts(cause)
            .zip(moments)
            .map(|(attempt, (chosen, connect, ended))| TimelineAttempt {
                backend: attempt.backend.to_owned(),
                chosen_ms: chosen.map_or(0.0, since_arrival),
                connected_ms: chosen.zip(connect).map(|(chosen, connect)| since_arrival(chosen) + millis(connect)),
                outcome: attempt.outcome.to_owned(),
                outcome_ms: ended.map(since_arrival),
            })
            .collect()
    }
}

fn connection_at(connection: &Connection, arrival: Instant) -> TimelineConnection {
    TimelineConnection {
        age_ms: millis(arrival.saturating_duration_since(connection.opened)),
        tls: connection.handshake.as_ref().map(|handshake| handshake.version.to_owned()),
        handshake_ms: connection.handshake.as_ref().map(|handshake| millis(handshake.duration)),
    }
}

/// In milliseconds, to the microsecond.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
