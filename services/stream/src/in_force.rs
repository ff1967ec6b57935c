//! What is in force: the rules of the file, with what administrators have set. It is made anew aside, so that events
//! need not wait for it.

use crate::metrics::ResultLabel;
use crate::partition::PartitionError;
use crate::service::StreamError;
use crate::settings::{DomainExemptions, Settings};
use crate::worker::Worker;
use std::sync::Arc;
use tidegate_detect::Rules;
use tokio::task::{JoinError, JoinHandle};

/// Rules and exemptions, and what is wrong with what is not among them.
#[derive(Debug, Clone)]
pub(crate) struct InForce {
    pub rules: Rules,
    /// Since when, in milliseconds.
    pub since_ms: i64,
    pub exemptions: Arc<DomainExemptions>,
    /// What of the settings is left out, and why.
    pub setting_problems: Vec<String>,
    /// What is wrong with a newer rules file that was not taken.
    pub file_problems: Vec<String>,
}

/// The file's rules with the settings.
#[derive(Debug)]
pub(crate) struct Made {
    rules: Rules,
    exemptions: DomainExemptions,
    problems: Vec<String>,
}

/// What is being made anew.
#[derive(Default)]
pub(crate) struct Making {
    task: Option<JoinHandle<Made>>,
    /// File or settings changed again meanwhile.
    is_stale: bool,
    /// How many changes of the file were taken that are not in force yet.
    taken: u64,
}

impl InForce {
    /// At the start.
    pub fn new(made: Made, since_ms: i64) -> Self {
        let Made { rules, exemptions, problems } = made;
        Self {
            rules,
            since_ms,
            exemptions: Arc::new(exemptions),
            setting_problems: problems,
            file_problems: Vec::new(),
        }
    }
}

impl Made {
    /// Takes some milliseconds for each set of limits.
    pub fn of(file: &Rules, settings: &Settings) -> Self {
        let (rules, problems) = file.with_settings(settings.of_rules());
        for problem in &problems {
            tracing::warn!(%problem, "a setting cannot be had");
        }
        Self { rules, exemptions: settings.exemptions(), problems }
    }
}

impl Making {
    /// What was made, when it is; never, while nothing is being made.
    pub async fn next(&mut self) -> Result<Made, JoinError> {
        match &mut self.task {
            Some(task) => {
                let made = task.await;
                self.task = None;
                made
            }
            None => std::future::pending().await,
        }
    }
}

impl Worker {
    /// Begins to make what is to be in force anew.
    pub fn make_anew(&mut self) {
        self.making.is_stale = self.making.task.is_some();
        if !self.making.is_stale {
            let (file, settings) = (self.file_rules.clone(), Arc::clone(&self.settings.borrow_and_update()));
            self.making.task = Some(tokio::task::spawn_blocking(move || Made::of(&file, &settings)));
        }
    }

    /// Puts in force what was made.
    pub fn made(&mut self, made: Result<Made, JoinError>) -> Result<(), StreamError> {
        let Made { rules, exemptions, problems } = made.map_err(StreamError::Thread)?;
        if rules.version() != self.in_force.rules.version() {
            let (version, mode, count) = (rules.version(), rules.mode().as_str(), rules.list().len());
            tracing::info!(version, mode, rules = count, "other rules are in force");
            self.in_force.since_ms = (self.clock)();
        }
        self.in_force.rules = rules;
        self.in_force.exemptions = Arc::new(exemptions);
        self.in_force.setting_problems = problems;
        self.put_in_force()?;
        self.announce();
        if self.making.is_stale {
            self.make_anew();
        } else {
            // Only now: whoever waits for it may count on the new rules.
            let taken = std::mem::take(&mut self.making.taken);
            self.metrics.rule_reloads.get_or_create(&ResultLabel { result: "taken" }).inc_by(taken);
        }
        Ok(())
    }

    fn put_in_force(&mut self) -> Result<(), PartitionError> {
        for owned in self.partitions.values_mut() {
            owned.core.set_rules(self.in_force.rules.clone())?;
            owned.core.set_exemptions(Arc::clone(&self.in_force.exemptions));
        }
        Ok(())
    }

    /// Looks whether the rules file changed.
    pub fn reload(&mut self) {
        match self.files.poll() {
            Ok(None) => {}
            Ok(Some(rules)) => {
                tracing::info!(
                    version = rules.version(),
                    mode = rules.mode().as_str(),
                    rules = rules.list().len(),
                    "the rules file changed; its rules come into force"
                );
                self.file_rules = rules;
                self.in_force.file_problems = Vec::new();
                self.making.taken += 1;
                self.make_anew();
            }
            Err(error) => {
                for problem in error.lines() {
                    tracing::error!(%problem, "the rules file has a problem");
                }
                tracing::error!(version = self.in_force.rules.version(), "the rules in force stay");
                self.in_force.file_problems = error.lines().to_vec();
                self.metrics.rule_reloads.get_or_create(&ResultLabel { result: "refused" }).inc();
                self.announce();
            }
        }
    }
}
