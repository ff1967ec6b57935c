//! The agent beside a mail server: publishes submissions and refuses locked accounts from memory.
