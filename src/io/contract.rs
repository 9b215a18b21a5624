//! One suite of promises, kept by every backend.
