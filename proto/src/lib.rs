//! The wire contract: protobuf messages, gRPC services and their conversions to domain types.
