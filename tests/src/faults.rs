//! What can go wrong in an installation: processes are killed, and the network between them fails.

use std::fmt;
use std::time::Duration;

use crate::proxy::{Fault, Proxy};
use crate::random::Random;

/// Something that goes wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A process is killed (SIGKILL), and started again.
    Kill(Victim),
    /// A process is told to end (SIGTERM), ends in order, and is started again: as the version that is rolled out, if there
    /// is one.
    Restart(Victim),
    /// A connection fails, and is healed.
    Network(Line, Weather),
}

/// A process that is killed or restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// A node of Kafka, from 0.
    Kafka(usize),
    /// The server `serve`, on the embedded log.
    AllInOne,
    /// A server `control`, from 0.
    Control(usize),
    /// A server `stream`, from 0.
    Stream(usize),
    /// The server `notifier`.
    Notifier,
    /// A server `history`, from 0.
    History(usize),
    /// A site's edge.
    Edge(usize),
}

/// Between which two a network fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// A site's edge, and control: states and, but for the first, events.
    EdgeToControl(usize),
    /// The first edge, and Kafka.
    EdgeToKafka,
    /// Control and Kafka.
    ControlToKafka,
    /// The stream worker and Kafka.
    StreamToKafka,
}

/// How a network fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Nothing arrives, and nobody is told.
    Cut,
    /// The same, from the middle of a message.
    CutAfter(u64),
    /// Connections are reset as they come.
    Refuse,
    /// The same, from the middle of a message.
    RefuseAfter(u64),
    /// Open connections are reset once.
    Reset,
    /// Everything arrives later, there and back.
    Delay(u64, u64),
}

impl Victim {
    /// The kind of process, in a table of what was killed.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Kafka(_) => "Kafka",
            Self::AllInOne => "all-in-one",
            Self::Control(_) => "control",
            Self::Stream(_) => "stream",
            Self::Notifier => "notifier",
            Self::History(_) => "history",
            Self::Edge(_) => "edge",
        }
    }
}

impl Weather {
    /// One at random.
    pub fn at_random(random: &mut Random) -> Self {
        let octets = random.within(1..20_000) as u64;
        match random.within(0..6) {
            0 => Self::Cut,
            1 => Self::CutAfter(octets),
            2 => Self::Refuse,
            3 => Self::RefuseAfter(octets),
            4 => Self::Reset,
            _ => Self::Delay(random.within(10..400) as u64, random.within(10..400) as u64),
        }
    }

    /// Begins on a proxy.
    pub fn begin(self, proxy: &Proxy) {
        match self {
            Self::Cut => proxy.break_with(Fault::Cut),
            Self::CutAfter(octets) => proxy.break_after(octets, Fault::Cut),
            Self::Refuse => proxy.break_with(Fault::Refuse),
            Self::RefuseAfter(octets) => proxy.break_after(octets, Fault::Refuse),
            Self::Reset => proxy.reset(),
            Self::Delay(there_ms, back_ms) => {
                proxy.delay(Duration::from_millis(there_ms), Duration::from_millis(back_ms));
            }
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Cut | Self::CutAfter(_) => "cut",
            Self::Refuse | Self::RefuseAfter(_) => "refused",
            Self::Reset => "reset",
            Self::Delay(..) => "delayed",
        }
    }
}

/// As a table of what went wrong calls its kind.
impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(victim) => write!(f, "{} killed", victim.kind()),
            Self::Restart(victim) => write!(f, "{} restarted", victim.kind()),
            Self::Network(line, weather) => {
                let line = match line {
                    Line::EdgeToControl(_) => "edge to control",
                    Line::EdgeToKafka => "edge to Kafka",
                    Line::ControlToKafka => "control to Kafka",
                    Line::StreamToKafka => "stream to Kafka",
                };
                write!(f, "{line} {}", weather.kind())
            }
        }
    }
}
