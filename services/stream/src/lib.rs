//! Consumes events and commands, keeps the windows, decides, and is the one writer of account states.
