//! Typed topics over one small trait: Kafka, the embedded log, and publishing over gRPC.
