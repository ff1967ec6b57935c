//! The fields of a form or of a query, in their order; a name may come more than once, as check boxes do.

/// Most fields that are taken; a page of a thousand accounts has about as many.
const MAX_FIELDS: usize = 2_000;

/// The fields of a form or of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads `application/x-www-form-urlencoded`.
    pub fn parse(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).into_owned().take(MAX_FIELDS).collect())
    }

    /// The first value of `name` without white space around; empty when there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.trim())
    }

    /// All values of `name` that are not empty.
    pub fn all(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(key, value)| key == name && !value.trim().is_empty());
        values.map(|(_, value)| value.trim().to_owned()).collect()
    }

    /// Whether `name` has a value: a box is checked.
    pub fn has(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// The value of `name` as a number; none when it is not set.
    ///
    /// # Errors
    /// A sentence for who typed it.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| format!("{name} is {text:?}; allowed: a number")),
        }
    }

    /// The value of `name` as a time in UTC; none when it is not set.
    ///
    /// # Errors
    /// A sentence for who typed it.
    pub fn time(&self, name: &str) -> Result<Option<i64>, String> {
        match self.get(name) {
            "" => Ok(None),
            text => crate::clock::parse(text).map(Some).map_err(|problem| format!("{name}: {problem}")),
        }
    }
}

/// A path with a query, encoded. Pairs with an empty value are left out.
pub(crate) fn link(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        query.append_pair(name, value);
    }
    match query.finish() {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_decoded_and_in_their_order() {
        let fields = Fields::parse(b"account=a%40b&account=%3Cscript%3E&reason=+two+words+&empty=&n=7&m=x");
        assert_eq!(fields.all("account"), ["a@b", "<script>"]);
        assert_eq!(fields.get("reason"), "two words");
        assert!(!fields.has("empty") && !fields.has("none"));
        assert_eq!(fields.number::<u32>("n"), Ok(Some(7)));
        assert_eq!(fields.number::<u32>("none"), Ok(None));
        assert_eq!(fields.number::<u32>("m"), Err("m is \"x\"; allowed: a number".into()));
    }

    #[test]
    fn a_link_carries_any_name_whole() {
        let name = "a/../b?c=d&e#f@g%20";
        let link = link("/account", &[("name", name), ("none", "")]);
        let query = link.strip_prefix("/account?").unwrap();
        assert_eq!(Fields::parse(query.as_bytes()).get("name"), name);
        assert!(!query.contains(['/', '#', '@', ' ']) && !query.contains("none"));
    }
}
