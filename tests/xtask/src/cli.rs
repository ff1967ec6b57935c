//! Reads a command's arguments: options with a value, and the rest.

use xtask::error::{Error, Result};

/// The arguments that have not been read yet.
#[derive(Debug)]
pub struct Arguments(Vec<String>);

impl Arguments {
    /// From the command line, without the program's own name.
    pub fn new(arguments: impl IntoIterator<Item = String>) -> Self {
        Self(arguments.into_iter().collect())
    }

    /// The next argument that is no option.
    pub fn word(&mut self) -> Option<String> {
        if self.0.first()?.starts_with('-') {
            return None;
        }
        Some(self.0.remove(0))
    }

    /// All values of an option that may be repeated, as `--name VALUE` or `--name=VALUE`.
    ///
    /// # Errors
    /// When a value is missing.
    pub fn values(&mut self, name: &str) -> Result<Vec<String>> {
        let mut values = Vec::new();
        while let Some(position) = self.0.iter().position(|argument| argument.split('=').next() == Some(name)) {
            let argument = self.0.remove(position);
            let value = match argument.split_once('=') {
                Some((_, value)) => value.to_owned(),
                None if position < self.0.len() => self.0.remove(position),
                None => return Err(Error::new(format!("{name} needs a value"))),
            };
            values.push(value);
        }
        Ok(values)
    }

    /// The value of an option; the last one counts.
    ///
    /// # Errors
    /// When its value is missing.
    pub fn value(&mut self, name: &str) -> Result<Option<String>> {
        Ok(self.values(name)?.pop())
    }

    /// The value of an option that is a TCP port.
    ///
    /// # Errors
    /// When its value is missing or no port.
    pub fn port(&mut self, name: &str) -> Result<Option<u16>> {
        let parse = |text: String| {
            let port = text.parse().ok().filter(|&port| port != 0);
            port.ok_or_else(|| Error::new(format!("{name} {text}: a port is a number from 1 to 65535")))
        };
        self.value(name)?.map(parse).transpose()
    }

    /// The value of an option that is a whole number.
    ///
    /// # Errors
    /// When its value is missing or no such number.
    pub fn number(&mut self, name: &str) -> Result<Option<u64>> {
        let parse = |text: String| text.parse().map_err(|_| Error::new(format!("{name} {text}: not a whole number")));
        self.value(name)?.map(parse).transpose()
    }

    /// Whether an option without a value is there.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|argument| argument != name);
        self.0.len() < before
    }

    /// Everything else, for another program.
    pub fn rest(self) -> Vec<String> {
        self.0
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// When something is left, which nobody understood.
    pub fn finish(self) -> Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some(unknown) => Err(Error::new(format!("`{unknown}` is not understood here"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Arguments {
        Arguments::new(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_may_stand_anywhere_and_repeat() {
        let mut given = arguments("up --milter unix:/a --fast --port=25 --milter inet:b:1");
        assert_eq!(given.word().as_deref(), Some("up"));
        assert_eq!(given.values("--milter").unwrap(), ["unix:/a", "inet:b:1"]);
        assert_eq!(given.port("--port").unwrap(), Some(25));
        assert_eq!(given.value("--user").unwrap(), None);
        assert_eq!((given.flag("--fast"), given.flag("--fast"), given.flag("--slow")), (true, false, false));
        given.finish().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(arguments("--port").port("--port").unwrap_err().to_string().contains("--port needs a value"));
        assert!(arguments("--port 0").port("--port").unwrap_err().to_string().contains("from 1 to 65535"));
        assert!(arguments("--seed x").number("--seed").unwrap_err().to_string().contains("not a whole number"));
        assert!(arguments("--prot 1").finish().unwrap_err().to_string().contains("--prot"));
    }
}
