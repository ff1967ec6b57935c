//! Sans-IO sessions of mail servers: milter, Postfix policy delegation, rspamd metadata; bytes in, events and replies out.
