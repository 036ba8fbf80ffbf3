//! The integration tests, one module an area, in one binary.

mod tidy;
