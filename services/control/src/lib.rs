//! The gRPC control service: pushes account states to edges and takes admin actions.
