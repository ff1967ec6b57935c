//! Cookies: three, all kept from scripts and from other sites' requests.

use http::header::{self, HeaderMap, HeaderValue};

/// A cookie of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cookie {
    /// The session's id.
    Session,
    /// What the sign-in form must carry too.
    SignIn,
    /// The name that somebody gave with an action where nothing proves it.
    Actor,
}

impl Cookie {
    /// Over TLS the prefix makes the browser refuse one that a neighbouring name or a plain connection set.
    fn name(self, is_secure: bool) -> &'static str {
        match (self, is_secure) {
            (Self::Session, true) => "__Host-tidegate",
            (Self::Session, false) => "tidegate",
            (Self::SignIn, true) => "__Host-tidegate-sign-in",
            (Self::SignIn, false) => "tidegate-sign-in",
            (Self::Actor, true) => "__Host-tidegate-actor",
            (Self::Actor, false) => "tidegate-actor",
        }
    }

    /// Its value in `headers`; empty when there is none.
    pub fn read(self, headers: &HeaderMap, is_secure: bool) -> &str {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == self.name(is_secure)).map_or("", |(_, value)| value)
    }

    /// The header that sets it to `value` until the browser is closed. None for a value that no cookie can have.
    pub fn set(self, value: &str, is_secure: bool) -> Option<HeaderValue> {
        self.write(value, "", is_secure)
    }

    /// The header that takes it away.
    pub fn clear(self, is_secure: bool) -> Option<HeaderValue> {
        self.write("", "; Max-Age=0", is_secure)
    }

    fn write(self, value: &str, more: &str, is_secure: bool) -> Option<HeaderValue> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.%+*".contains(&byte);
        if !value.bytes().all(plain) {
            return None;
        }
        let secure = if is_secure { "; Secure" } else { "" };
        let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}", self.name(is_secure));
        HeaderValue::from_str(&text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_kept_from_scripts_and_other_sites() {
        let text = Cookie::Session.set("abc", true).unwrap();
        assert_eq!(text, "__Host-tidegate=abc; Path=/; HttpOnly; SameSite=Strict; Secure");
        assert_eq!(Cookie::Session.set("abc", false).unwrap(), "tidegate=abc; Path=/; HttpOnly; SameSite=Strict");
        assert!(Cookie::Session.clear(true).unwrap().to_str().unwrap().ends_with("; Secure; Max-Age=0"));
        assert_eq!(Cookie::Session.set("a; Domain=evil", true), None);
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let headers = HeaderMap::from_iter([(
            header::COOKIE,
            HeaderValue::from_static("a=1; xtidegate=no; tidegate-sign-in=s; tidegate=yes; b=2"),
        )]);
        assert_eq!(Cookie::Session.read(&headers, false), "yes");
        assert_eq!(Cookie::SignIn.read(&headers, false), "s");
        assert_eq!(Cookie::Session.read(&headers, true), "");
    }
}
