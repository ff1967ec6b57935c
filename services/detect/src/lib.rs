//! Windowed per-account statistics and rules over Arrow with DataFusion; time is an argument.
